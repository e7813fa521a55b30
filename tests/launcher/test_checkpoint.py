"""A folder in Hugging Face layout: which engine serves it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from config.environment import load_settings
from config.manifest import load_manifest
from config.settings import ModelSettings
from launcher import checkpoint
from launcher.errors import ExitCode, LaunchError
from launcher.model import demo_folder, find_model
from launcher.plan.estimate import imagined_system
from launcher.plan.planner import Plan, make_plan, plan_profile
from launcher.workspace import Workspace

DEMO = demo_folder() / "demo-moe"
NEEDED = ("config.json", "tokenizer.json", "model.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo model without its GGUF files."""
    for name in NEEDED:
        (tmp_path / name).symlink_to(DEMO / name)
    return tmp_path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that says which engines are installed."""

    def install(*engines: str) -> None:
        monkeypatch.setattr(checkpoint, "available_engines", lambda: frozenset(engines))

    return install


def refused(settings: ModelSettings) -> LaunchError:
    with pytest.raises(LaunchError) as caught:
        find_model(settings)
    assert caught.value.code is ExitCode.CANNOT_START
    return caught.value


def test_the_shape_is_that_of_the_gguf_file(folder: Path, installed: Callable[..., None]) -> None:
    """Both forms of the demo model give the planner the same figures."""
    installed("llama_cpp", "vllm")
    model, converted = find_model(ModelSettings(path=folder)), find_model(ModelSettings(path=DEMO))
    assert (model.core, converted.core) == ("vllm", "llama_cpp")
    assert (model.checkpoint, converted.checkpoint) == (folder, None)
    assert model.shape == converted.shape
    assert model.weights == folder / "model.safetensors"
    assert model.tokenizer == folder / "tokenizer.json"
    assert model.names == (folder.name,)


@pytest.mark.parametrize(
    ("wanted", "has", "engine"),
    [
        ("auto", ("vllm",), "vllm"),
        ("auto", ("vllm", "tensorrt_llm"), "tensorrt_llm"),
        ("vllm", ("vllm", "tensorrt_llm"), "vllm"),
        ("tensorrt_llm", ("tensorrt_llm",), "tensorrt_llm"),
    ],
)
def test_the_engine_is_what_was_asked_for_or_is_there(
    folder: Path, installed: Callable[..., None], wanted: Any, has: tuple[str, ...], engine: str
) -> None:
    """NIM_ENGINE decides; without it the best installed engine does."""
    installed("llama_cpp", *has)
    assert find_model(ModelSettings(path=folder, engine=wanted)).core == engine


def test_both_forms_in_one_folder_go_by_the_setting(installed: Callable[..., None]) -> None:
    """The demo folder has both; a GGUF file is preferred unless another engine is named."""
    installed("llama_cpp", "vllm")
    assert find_model(ModelSettings(path=DEMO, engine="vllm")).core == "vllm"
    assert find_model(ModelSettings(path=DEMO, engine="llama_cpp")).core == "llama_cpp"


def test_without_an_engine_for_it_the_folder_is_refused(folder: Path, installed: Callable[..., None]) -> None:
    """The message says what the folder is, and what would help."""
    installed("llama_cpp")
    error = refused(ModelSettings(path=folder))
    assert "Hugging Face layout" in error.message
    assert "gemma4-nim build" in (error.remedy or "")
    assert "NIM_ENGINE=vllm is not installed here" in refused(ModelSettings(path=folder, engine="vllm")).message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"model_type": "llama"}', "not a Gemma 4: model_type is llama"),
        ('{"model_type": "gemma4", "text_config": {}}', "is damaged"),
    ],
)
def test_a_bad_configuration_is_named(folder: Path, installed: Callable[..., None], text: str, reason: str) -> None:
    """The file and the reason are in the message."""
    installed("vllm")
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(text, encoding="utf-8")
    assert reason in refused(ModelSettings(path=folder)).message


def test_a_missing_tokenizer_is_named(folder: Path, installed: Callable[..., None]) -> None:
    """A checkpoint has no vocabulary elsewhere."""
    installed("vllm")
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json does not exist" in refused(ModelSettings(path=folder)).message


def engine_record(plan: Plan, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return what the engine's process is told."""
    workspace = Workspace.create()
    try:
        _, engine = workspace.commands(plan, DEMO / "tokenizer.json", variables)
        record: dict[str, Any] = json.loads(Path(engine.arguments[-1]).read_text(encoding="utf-8"))
    finally:
        workspace.remove()
    return record


def test_the_engine_gets_the_checkpoint(folder: Path, installed: Callable[..., None]) -> None:
    """The record for the engine's process names the core and the folder, and no GGUF file."""
    installed("vllm")
    loaded = load_settings({"NIM_MODEL_PATH": str(folder), "NIM_MAX_MODEL_LEN": "4096"}, environ={})
    plan = make_plan(loaded.settings, imagined_system(""), find_model(loaded.settings.model))
    assert isinstance(plan, Plan)
    assert plan.core == "vllm"
    record = engine_record(plan, loaded.variables)
    assert (record["core"], record["checkpoint_path"]) == ("vllm", str(folder))
    assert (record["model_path"], record["mmproj_path"]) == (None, None)
    assert record["context_tokens"] == 4096


def test_a_profile_for_gpus_says_how_its_engine_runs(folder: Path, installed: Callable[..., None]) -> None:
    """GPUs, memory, batch, precision and draft model of the plan are in the record."""
    installed("vllm")
    loaded = load_settings({"NIM_TAGS_SELECTOR": "llm_engine=vllm,feat_mtp=true"}, environ={})
    system, engines = imagined_system("2xNVIDIA H100 80GB HBM3"), frozenset({"vllm"})
    plan = plan_profile(loaded.settings, system, load_manifest(None), engines)
    assert isinstance(plan, Plan)
    assert plan.profile is not None
    record = engine_record(plan.with_files(find_model(ModelSettings(path=folder))), loaded.variables)
    assert (record["core"], record["precision"]) == ("vllm", plan.profile.precision)
    assert record["tensor_parallel"] == len(plan.gpus)
    assert record["gpu_memory_fraction"] == plan.gpu_memory_fraction
    assert record["batch_tokens"] == plan.batch_tokens > 0
    assert record["draft_path"] == str(folder / "draft")
