"""The profile manifest: what it covers, ids that follow from content, and errors that name profile and field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigError
from config.manifest import FileEntry, Manifest, Profile, Workspace, content_id, load_manifest, parse_manifest
from config.manifest_export import SCHEMA, export_yaml, manifest_record, schema_text
from config.manifest_source import read_source
from config.variants import VARIANTS

GOLDEN = Path(__file__).parents[1] / "data" / "profile_ids.json"
MANIFEST = load_manifest()


def _one() -> dict[str, Any]:
    """Return a small manifest as plain values: one profile for one file."""
    return {
        "schema_version": "2.0.0",
        "profiles": [
            {
                "id": "ab" * 32,
                "tags": {"llm_engine": "vllm", "precision": "fp8", "tp": "2", "pp": "1", "model_variant": "31b"},
                "workspace": {
                    "files": {"config.json": {"uri": "ngc://org/team/model:1?file=config.json", "checksum": "abc"}}
                },
            }
        ],
    }


def _problems(document: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_manifest(document, "m.yaml")
    return list(caught.value.problems)


def test_every_combination_that_was_promised_is_there() -> None:
    """Both models, three engines, five precisions, 1 to 8 GPUs, both objectives, adapters and draft models."""
    found = {(p.variant, p.engine, p.precision, p.tensor_parallel, p.objective) for p in MANIFEST.profiles}

    for variant in ("26b-a4b", "31b"):
        for objective in ("latency", "throughput"):
            for engine in ("tensorrt_llm", "vllm"):
                for precision in ("bf16", "fp8", "nvfp4"):
                    for count in (1, 2, 4, 8):
                        impossible = (variant, precision, count) == ("26b-a4b", "nvfp4", 8)
                        assert ((variant, engine, precision, count, objective) in found) is not impossible
            for precision in ("q8_0", "q4_k_m"):
                assert (variant, "llama_cpp", precision, 1, objective) in found
    assert {p.engine for p in MANIFEST.profiles if p.lora} == {"vllm"}
    assert {(p.engine, p.objective) for p in MANIFEST.profiles if p.mtp} == {("vllm", "latency")}


def test_document_counts_the_profiles() -> None:
    """docs/profiles.md names as many as there are."""
    page = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text(encoding="utf-8")

    assert re.search(rf"\b{len(MANIFEST.profiles)}\s+profiles\b", page)


def test_names_and_ids_are_unique() -> None:
    """No two profiles can be meant by the same word."""
    assert len({profile.id for profile in MANIFEST.profiles}) == len(MANIFEST.profiles)
    assert len({profile.name for profile in MANIFEST.profiles}) == len(MANIFEST.profiles)


def test_ids_follow_from_the_content() -> None:
    """An id is the hash of what the profile is."""
    for profile in MANIFEST.profiles:
        assert profile.id == content_id(profile.tags, profile.workspace)


def test_ids_are_those_that_were_published() -> None:
    """People pin profiles by id: the ids of this project's profiles only change together with this file."""
    assert {profile.name: profile.id for profile in MANIFEST.profiles} == json.loads(GOLDEN.read_text())


def test_a_better_estimate_of_a_size_makes_no_other_profile() -> None:
    """Approximate sizes are not part of the id; a pinned checksum is."""
    profile = MANIFEST.profiles[0]
    (path, entry), *_ = profile.workspace.files.items()
    estimated = profile.workspace.model_copy(update={"files": {path: entry.model_copy(update={"approximate_size": 1})}})
    pinned = profile.workspace.model_copy(
        update={"files": {path: entry.model_copy(update={"checksum": "sha256:" + "0" * 64})}}
    )

    assert content_id(profile.tags, estimated) == profile.id
    assert content_id(profile.tags, pinned) != profile.id


def test_what_is_not_known_is_said_to_be_resolved_at_download() -> None:
    """No size and no checksum is made up: each file has both, or says where they will come from."""
    for profile in MANIFEST.profiles:
        for file in profile.files:
            assert (file.size is not None and file.sha256 is not None) or file.resolve == "at download"
            assert file.planned_size > 0


@pytest.mark.parametrize(
    ("name", "repositories"),
    [
        ("vllm-26b-a4b-bf16-tp1-pp1-latency", ["hf://google/gemma-4-26B-A4B-it:main"]),
        ("vllm-31b-fp8-tp2-pp1-throughput-lora", ["hf://RedHatAI/gemma-4-31B-it-FP8-dynamic:main"]),
        ("tensorrt_llm-26b-a4b-nvfp4-tp1-pp1-latency", ["hf://nvidia/Gemma-4-26B-A4B-NVFP4:main"]),
        (
            "vllm-31b-nvfp4-tp1-pp1-latency-mtp",
            ["hf://nvidia/Gemma-4-31B-IT-NVFP4:main", "hf://google/gemma-4-31B-it-assistant:main"],
        ),
        (
            "llama_cpp-31b-q4_k_m-tp1-pp1-latency",
            [
                "hf://ggml-org/gemma-4-31B-it-GGUF:main?file=gemma-4-31B-it-Q4_K_M.gguf",
                "hf://ggml-org/gemma-4-31B-it-GGUF:main?file=mmproj-gemma-4-31B-it-bf16.gguf",
            ],
        ),
    ],
)
def test_profiles_name_the_published_checkpoints(name: str, repositories: list[str]) -> None:
    """Each precision comes from the repository that publishes it, a draft model from its own."""
    profile = next(profile for profile in MANIFEST.profiles if profile.name == name)

    assert [file.uri for file in profile.files] == repositories


def test_draft_model_lies_in_a_folder_of_its_own() -> None:
    """Two checkpoints with equal file names do not mix."""
    profile = next(profile for profile in MANIFEST.profiles if profile.mtp)

    assert [file.path for file in profile.files] == ["*", "draft/*"]


def test_bf16_weights_have_the_size_of_their_parameters() -> None:
    """The approximate size of an unquantised checkpoint is two bytes per parameter, to one percent."""
    for variant in VARIANTS:
        parameters = variant.text_parameters + variant.vision_parameters
        profile = next(p for p in MANIFEST.profiles if (p.variant, p.precision) == (variant.key, "bf16"))
        assert profile.download_size == pytest.approx(2 * parameters, rel=0.01)


def test_exported_manifest_reads_back() -> None:
    """What is written in NIM's form is the same manifest when it is read."""
    text = export_yaml(MANIFEST)

    assert parse_manifest(yaml.safe_load(text), "export") == MANIFEST
    assert text.startswith("schema_version: 2.0.0\nprofile_selection_criteria: default\nprofiles:\n")
    assert "tp: '2'" in text


def test_exported_manifest_is_valid_by_the_published_schema() -> None:
    """The schema that others validate against accepts this project's manifest and is up to date."""
    schema = json.loads(SCHEMA.read_text())

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(manifest_record(MANIFEST), schema)
    assert schema_text() == SCHEMA.read_text(), "run: python -m config.manifest_export --schema"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema_version": "2.0.0", "profiles": [{"id": "1"}]}, schema)


def test_manifest_file_of_another_publisher_loads(tmp_path: Path) -> None:
    """A manifest in NIM's form loads from a file; a checksum of another kind is not taken for one."""
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump(_one()))

    (profile,) = load_manifest(path).profiles

    assert profile.name == "vllm-31b-fp8-tp2-pp1-throughput"
    assert profile.files[0].sha256 is None
    assert profile.files[0].path == "config.json"


def test_sha256_of_a_file_is_read() -> None:
    """A checksum with its kind in front is one."""
    document = _one()
    document["profiles"][0]["workspace"]["files"]["config.json"]["checksum"] = "sha256:" + "0f" * 32

    assert parse_manifest(document, "m").profiles[0].files[0].sha256 == "0f" * 32


@pytest.mark.parametrize(
    ("tag", "value", "expected"),
    [
        ("tp", "two", "profile 1 (abababababab): tags.tp: must be a whole number from 1 up, not 'two'"),
        ("tp", "0", "tags.tp: must be a whole number from 1 up, not '0'"),
        ("tp", None, "profile 1 (abababababab): tags.tp: missing"),
        ("model_variant", "9b", "tags.model_variant: must be 26b-a4b or 31b, not '9b'"),
        ("feat_lora", "yes", "tags.feat_lora: must be 'true' or 'false', not 'yes'"),
        ("precision", 8, "tags.precision: Input should be a valid string"),
    ],
)
def test_fault_in_a_tag_names_profile_and_tag(tag: str, value: object, expected: str) -> None:
    """Whoever wrote the manifest finds the line."""
    document = _one()
    document["profiles"][0]["tags"].pop(tag, None)
    if value is not None:
        document["profiles"][0]["tags"][tag] = value

    (problem,) = _problems(document)

    assert problem.startswith("the manifest m.yaml: ")
    assert expected in problem


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a\\b"])
def test_path_that_leaves_the_workspace_is_refused(path: str) -> None:
    """A manifest cannot make the launcher write outside of the model's folder."""
    document = _one()
    document["profiles"][0]["workspace"]["files"] = {path: {"uri": "hf://a/b:main?file=x"}}

    assert "must be a path inside the workspace" in _problems(document)[0]


def test_unknown_source_and_unknown_field_are_named() -> None:
    """Nothing in a manifest is ignored in silence."""
    document = _one()
    document["profiles"][0]["workspace"]["files"] = {"x": {"uri": "ftp://a/b", "sise": 1}}

    problems = _problems(document)

    assert any("workspace.files.x.uri: must be hf://" in problem for problem in problems)
    assert any("workspace.files.x.sise: Extra inputs" in problem for problem in problems)


def test_id_must_be_a_hash_and_unique() -> None:
    """Two profiles of one id could not be told apart."""
    document = _one()
    document["profiles"].append(dict(document["profiles"][0]))
    assert "two profiles have the id" in _problems(document)[0]

    document = _one()
    document["profiles"][0]["id"] = "short"
    assert "profile 1 (short): id: String should match" in _problems(document)[0]


def test_first_version_of_the_schema_is_refused_by_name() -> None:
    """NIM's first form has no version; what is missing is said."""
    assert any("schema_version" in problem for problem in _problems({"f" * 64: {"model": "x"}}))
    assert _problems([]) == ["the manifest m.yaml: Input should be a valid dictionary or instance of Manifest"]


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    """A path to nothing and a file that is no YAML say so, with the path."""
    missing, broken = tmp_path / "absent.yaml", tmp_path / "broken.yaml"
    broken.write_text("profiles: [")

    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read: No such file"):
        load_manifest(missing)
    with pytest.raises(ConfigError, match=r"broken\.yaml is not valid YAML"):
        load_manifest(broken)


def test_broken_source_names_its_field(tmp_path: Path) -> None:
    """Whoever edits the compact source learns which field is wrong."""
    path = tmp_path / "gemma4.yaml"
    path.write_text("checkpoints: {}\ncheckpoint_files: []\nengines: {vllm: {precisions: [int3]}}\n")

    with pytest.raises(ConfigError) as caught:
        read_source(path)

    assert any("engines.vllm.precisions.0" in problem for problem in caught.value.problems)
    assert any(problem.startswith("gemma4.yaml: unproven: ") for problem in caught.value.problems)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(values, st.sampled_from(["profiles", "tags", "workspace", "files", "id"]))
def test_no_document_breaks_the_reader(value: object, place: str) -> None:
    """Whatever stands in a manifest, it loads or is refused with a line of text."""
    document = _one()
    profile = document["profiles"][0]
    targets: dict[str, dict[str, Any]] = {
        "profiles": document, "tags": profile, "id": profile, "workspace": profile, "files": profile["workspace"],
    }  # fmt: skip
    targets[place][place] = value
    try:
        manifest = parse_manifest(document, "m.yaml")
    except ConfigError as error:
        assert all(problem.startswith("the manifest m.yaml: ") and "\n" not in problem for problem in error.problems)
    else:
        assert isinstance(manifest, Manifest)


def test_typed_views_agree_with_the_tags() -> None:
    """What code reads is what the tags say, with NIM's defaults where a tag is missing."""
    (profile,) = parse_manifest(_one(), "m").profiles

    assert (profile.engine, profile.precision, profile.tensor_parallel, profile.variant) == ("vllm", "fp8", 2, "31b")
    assert (profile.pipeline_parallel, profile.objective, profile.lora, profile.mtp) == (1, "throughput", False, False)
    assert profile.short_name == "vllm-fp8-tp2-pp1"
    assert isinstance(profile, Profile)


def test_copy_with_other_values_keeps_nothing_of_the_old_ones() -> None:
    """Names, files and sizes follow the values of the copy."""
    profile = MANIFEST.profiles[0]
    assert profile.download_size > 0
    assert profile.files
    entry = FileEntry(uri="hf://a/b:main?file=x", approximate_size=7)

    copy = profile.model_copy(update={"tags": profile.tags | {"tp": "4"}, "workspace": Workspace(files={"x": entry})})

    assert (copy.download_size, [file.path for file in copy.files]) == (7, ["x"])
    assert copy.name == profile.name.replace("tp1", "tp4")
