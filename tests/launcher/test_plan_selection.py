"""Which profiles the settings mean: ids, beginnings of ids, names, tags, and wishes that contradict each other."""

from __future__ import annotations

import pytest

from config.manifest import Profile, load_manifest
from config.settings import Settings
from config.settings_profile import ProfileSettings
from launcher.plan.result import Refusal
from launcher.plan.selection import Selection, select
from launcher.plan.wishes import Wishes, read_wishes

MANIFEST = load_manifest()
LORA = next(profile for profile in MANIFEST.profiles if profile.name == "vllm-31b-fp8-tp2-pp1-throughput-lora")


def _wishes(**values: object) -> Wishes:
    return read_wishes(Settings(profile=ProfileSettings.model_validate(values)))


def _allowed(**values: object) -> list[Profile]:
    found = select(MANIFEST, _wishes(**values))
    assert isinstance(found, Selection)
    return [profile for profile in MANIFEST.profiles if found.allows(profile)]


def _refused(**values: object) -> Refusal:
    found = select(MANIFEST, _wishes(**values))
    assert isinstance(found, Refusal)
    assert found.reason
    assert found.remedy
    return found


@pytest.mark.parametrize("word", [LORA.id, LORA.id[:12], LORA.id[:12].upper(), LORA.name, f"{LORA.id} ({LORA.name})"])
def test_a_profile_is_named_in_every_way(word: str) -> None:
    """The id, its beginning in any case, the name, and what NIM prints: all mean the same profile."""
    assert _allowed(name=word) == [LORA]


def test_nims_short_name_leaves_model_and_objective_open() -> None:
    """A name that works with NIM works here; the ranking settles the rest."""
    allowed = _allowed(name="vllm-bf16-tp1-pp1")

    assert {(one.variant, one.objective) for one in allowed} == {
        ("26b-a4b", "latency"), ("26b-a4b", "throughput"), ("31b", "latency"), ("31b", "throughput"),
    }  # fmt: skip


@pytest.mark.parametrize("word", ["default", "auto", "Default", ""])
def test_no_name_allows_everything(word: str) -> None:
    """``default`` is the automatic choice."""
    assert len(_allowed(**({"name": word} if word else {}))) == len(MANIFEST.profiles)


def test_beginning_of_several_ids_lists_them() -> None:
    """Who gives too few letters sees which profiles begin so."""
    first = next(
        one.id[:4] for one in MANIFEST.profiles if sum(other.id[:4] == one.id[:4] for other in MANIFEST.profiles) == 1
    )
    clones = [MANIFEST.profiles[0].model_copy(update={"id": first + digit * 60}) for digit in "ab"]
    manifest = MANIFEST.model_copy(update={"profiles": tuple(clones)})

    refusal = select(manifest, _wishes(name=first))

    assert isinstance(refusal, Refusal)
    assert f"is the beginning of 2 ids: {first}aaaaaa" in refusal.reason


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("vllm-26b-a4b-fp8-tp1-pp1-latncy", "vllm-26b-a4b-fp8-tp1-pp1-latency"),
        ("vllm-fp8-tp3-pp1", "vllm-fp8-tp"),
        ("tensorrtllm-26b-a4b-nvfp4-tp2-pp1-latency", "tensorrt_llm-26b-a4b-nvfp4-tp2-pp1-latency"),
    ],
)
def test_unknown_name_lists_near_ones(word: str, near: str) -> None:
    """A slip of the pen costs one look at the message."""
    refusal = _refused(name=word)

    assert word in refusal.reason
    assert f"did you mean {near}" in refusal.remedy or f"or {near}" in refusal.remedy
    assert "list-model-profiles" in refusal.remedy


def test_unknown_id_names_the_list() -> None:
    """An id of another image is not guessed at."""
    assert "list-model-profiles" in _refused(name="0" * 64).remedy


def test_tags_narrow_down() -> None:
    """All tags must hold; variables for single tags count in the same way."""
    allowed = _allowed(tags="precision=fp8,tp=2", variant="31b", objective="throughput")

    assert {one.name for one in allowed} == {
        "tensorrt_llm-31b-fp8-tp2-pp1-throughput",
        "vllm-31b-fp8-tp2-pp1-throughput",
        "vllm-31b-fp8-tp2-pp1-throughput-lora",
    }


@pytest.mark.parametrize(
    ("values", "reason", "remedy"),
    [
        ({"tags": "presicion=fp8"}, "NIM_TAGS_SELECTOR=presicion=fp8: no profile has this tag", "use precision"),
        ({"tags": "precision=fp7"}, "no profile has this value", "bf16, fp8, nvfp4, q4_k_m, q8_0"),
        (
            {"tags": "tp=4", "tensor_parallel": 2},
            "NIM_TAGS_SELECTOR=tp=4 and NIM_TENSOR_PARALLEL_SIZE=2 contradict each other",
            "unset NIM_TENSOR_PARALLEL_SIZE",
        ),
        (
            {"tags": "llm_engine=llama_cpp", "precision": "nvfp4"},
            "no profile has both NIM_TAGS_SELECTOR=llm_engine=llama_cpp and NIM_MODEL_PRECISION=nvfp4",
            "unset NIM_TAGS_SELECTOR or NIM_MODEL_PRECISION",
        ),
        (
            {"tags": "feat_mtp=true,feat_lora=true"},
            "no profile has both NIM_TAGS_SELECTOR=feat_mtp=true and NIM_TAGS_SELECTOR=feat_lora=true",
            "unset NIM_TAGS_SELECTOR",
        ),
        (
            {"tags": "precision=nvfp4,tp=8", "variant": "26b-a4b"},
            "no profile has all of",
            "leave one of them out",
        ),
        (
            {"name": LORA.name, "precision": "bf16"},
            f"NIM_MODEL_PROFILE={LORA.name} has precision=fp8, but NIM_MODEL_PRECISION=bf16",
            "unset NIM_MODEL_PRECISION or NIM_MODEL_PROFILE",
        ),
    ],
)
def test_what_cannot_be_meant_names_both_sides(values: dict[str, object], reason: str, remedy: str) -> None:
    """A contradiction is said with the variables that make it, and what to unset."""
    refusal = _refused(**values)

    assert reason in refusal.reason
    assert remedy in refusal.remedy


def test_every_variable_becomes_a_wish() -> None:
    """The settings arrive in the terms in which profiles are chosen, each with the variable that said it."""
    wishes = _wishes(tags="llm_engine=vllm", variant="31b", precision="fp8", objective="latency", tensor_parallel="4")

    assert [(wish.tag, wish.value, wish.variable) for wish in wishes.tags] == [
        ("llm_engine", "vllm", "NIM_TAGS_SELECTOR"),
        ("model_variant", "31b", "NIM_MODEL_VARIANT"),
        ("precision", "fp8", "NIM_MODEL_PRECISION"),
        ("profile", "latency", "NIM_PERF_PROFILE"),
        ("tp", "4", "NIM_TENSOR_PARALLEL_SIZE"),
    ]
