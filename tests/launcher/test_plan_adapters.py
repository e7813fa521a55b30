"""LoRA adapters in plans: which profile is chosen for them, what memory they take, and who cannot load them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config.environment import load_settings
from config.manifest import load_manifest
from config.settings import Settings
from launcher.errors import ExitCode, LaunchError
from launcher.memory_gpu import GpuLoad
from launcher.model import ModelFiles, find_model
from launcher.plan.adapters import adapter_rows, check_adapter_folder
from launcher.plan.estimate import imagined_system
from launcher.plan.planner import Plan, Refusal, make_plan, plan_profile
from launcher.remote import plan_remote
from launcher.unused_settings import unused_settings
from launcher.workspace import Workspace
from tests.conftest import DEMO
from tests.fakes import console

MANIFEST = load_manifest()
ALL = frozenset({"llama_cpp", "vllm", "tensorrt_llm"})


def settings(**variables: str) -> Settings:
    """Return settings with a folder of adapters and these variables."""
    return load_settings({"NIM_PEFT_SOURCE": "/adapters", **variables}, environ={}).settings


def planned(gpus: str, engines: frozenset[str] = ALL, **variables: str) -> Plan | Refusal:
    """Return the plan among the profiles for imagined GPUs."""
    return plan_profile(settings(**variables), imagined_system(gpus), MANIFEST, engines)


def load_of(plan: Plan | Refusal) -> int:
    """Return the bytes of the weights, adapters included, of a plan on a GPU."""
    assert isinstance(plan, Plan)
    return plan.memory.weights


@pytest.mark.parametrize(
    ("gpus", "name"),
    [
        ("1xH100", "vllm-26b-a4b-bf16-tp1-pp1-latency-lora"),
        ("1xB200", "vllm-26b-a4b-bf16-tp1-pp1-latency-lora"),
        ("2xH100", "vllm-26b-a4b-bf16-tp2-pp1-latency-lora"),
    ],
)
def test_folder_of_adapters_asks_for_a_profile_that_loads_them(gpus: str, name: str) -> None:
    """Also where another engine would be preferred without."""
    plan = planned(gpus)
    assert isinstance(plan, Plan)
    assert plan.profile is not None
    assert (plan.profile.name, plan.core) == (name, "vllm")
    assert plan.adapters is not None


@pytest.mark.parametrize(
    ("variables", "row"),
    [
        ({}, "/adapters; 8 at once, of rank 32 at most"),
        (
            {"NIM_PEFT_REFRESH_INTERVAL": "90", "NIM_MAX_GPU_LORAS": "2", "NIM_MAX_LORA_RANK": "64"},
            "/adapters, looked at every 90 s; 2 at once, of rank 64 at most",
        ),
    ],
)
def test_plan_says_where_adapters_are(variables: dict[str, str], row: str) -> None:
    """A plan without them says nothing."""
    plan = planned("1xH200", **variables)
    assert isinstance(plan, Plan)
    assert adapter_rows(plan.adapters) == [("adapters", row)]
    assert adapter_rows(None) == []


def test_profiles_without_adapters_say_which_variable_rules_them_out() -> None:
    """And how to get them all the same."""
    plan = planned("1xB200")
    assert isinstance(plan, Plan)
    name = "tensorrt_llm-26b-a4b-nvfp4-tp1-pp1-latency"
    rejected = next(one for one in plan.rejected if one.profile.name == name)
    assert rejected.reason == "NIM_PEFT_SOURCE asks for feat_lora=true, and this has false"
    assert rejected.remedy == f"unset NIM_PEFT_SOURCE and set NIM_MODEL_PROFILE={name}"


def test_memory_is_set_aside_for_what_is_asked() -> None:
    """As many adapters as may be used at once, of the largest rank, as vLLM rounds it up."""
    usual = load_of(planned("1xH200"))
    assert load_of(planned("1xH200", NIM_MAX_LORA_RANK="32", NIM_MAX_GPU_LORAS="8")) == usual
    assert load_of(planned("1xH200", NIM_MAX_GPU_LORAS="2")) < usual
    assert load_of(planned("1xH200", NIM_MAX_LORA_RANK="65")) == load_of(planned("1xH200", NIM_MAX_LORA_RANK="128"))
    assert load_of(planned("1xH200", NIM_MAX_LORA_RANK="65")) > usual
    assert GpuLoad.__dataclass_fields__["lora_slots"].default == Settings().adapters.max_gpu


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"NIM_MODEL_PROFILE": "vllm-fp8-tp1-pp1"}, "feat_lora=false, but NIM_PEFT_SOURCE, which needs feat_lora=true"),
        ({"NIM_TAGS_SELECTOR": "llm_engine=tensorrt_llm"}, "NIM_PEFT_SOURCE, which needs feat_lora=true"),
        ({"NIM_TAGS_SELECTOR": "feat_lora=false"}, "contradict each other"),
    ],
)
def test_wishes_that_leave_no_engine_for_adapters_are_named(variables: dict[str, str], words: str) -> None:
    """With the variable to change."""
    refusal = planned("1xH100", **variables)
    assert isinstance(refusal, Refusal)
    assert words in refusal.reason
    assert "NIM_" in refusal.remedy


@pytest.mark.parametrize(("gpus", "engines"), [("", ALL), ("1xH100", frozenset({"llama_cpp"}))])
def test_machine_without_vllm_is_refused(gpus: str, engines: frozenset[str]) -> None:
    """Nothing is served without the adapters that were asked for; the remedy says how it would be."""
    refusal = planned(gpus, engines)
    assert isinstance(refusal, Refusal)
    assert "only vLLM loads adapters, without them unset NIM_PEFT_SOURCE" in refusal.remedy


def test_model_for_another_engine_is_refused() -> None:
    """The demo model's own engine loads none."""
    model = find_model(settings().model)
    refusal = make_plan(settings(), imagined_system(""), model)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "adapters"
    assert refusal.reason == "NIM_PEFT_SOURCE is set, and llama.cpp loads no adapters: vLLM does"
    assert "NIM_ENGINE=vllm" in refusal.remedy
    assert isinstance(make_plan(settings(NIM_PEFT_SOURCE="none"), imagined_system(""), model), Plan)


def test_processes_are_told(tmp_path: Path) -> None:
    """The engine where adapters are and what may not be their names, the API that it is worth asking for them."""
    wanted = settings(
        NIM_PEFT_SOURCE=str(tmp_path), NIM_PEFT_REFRESH_INTERVAL="30", NIM_MAX_LORA_RANK="16", NIM_MAX_CPU_LORAS="40"
    )
    found = find_model(wanted.model)
    model = ModelFiles(
        weights=found.weights, weight_bytes=found.weight_bytes, projector=None, tokenizer=found.tokenizer,
        shape=found.shape, names=("mine", "also"), why="", core="vllm", checkpoint=DEMO,
    )  # fmt: skip
    for settings_of_run, adapters in ((wanted, True), (Settings(), False)):
        plan = make_plan(settings_of_run, imagined_system(""), model)
        assert isinstance(plan, Plan)
        engine, api = records(plan)
        assert api["adapters"] is adapters
        assert engine["adapters"] == (
            {
                "source": str(tmp_path), "refresh_s": 30, "max_rank": 16, "max_gpu": 8, "max_cpu": 40,
                "reserved_names": ["mine", "also"],
            } if adapters else None
        )  # fmt: skip


def records(plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the engine and the API are told."""
    workspace = Workspace.create()
    try:
        api, engine = workspace.commands(plan, DEMO / "tokenizer.json", {})
        texts = [Path(command.arguments[-1]).read_text(encoding="utf-8") for command in (engine, api)]
    finally:
        workspace.remove()
    return json.loads(texts[0]), json.loads(texts[1])


def test_folder_has_to_be_there(tmp_path: Path) -> None:
    """It is looked for before anything is downloaded."""
    check_adapter_folder(settings(NIM_PEFT_SOURCE=str(tmp_path)))
    check_adapter_folder(Settings())
    (tmp_path / "file").touch()
    for missing in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(LaunchError, match="is no folder that can be seen here") as caught:
            check_adapter_folder(settings(NIM_PEFT_SOURCE=str(missing)))
        assert caught.value.code is ExitCode.BAD_SETTINGS


def test_engines_elsewhere_have_their_own() -> None:
    """The API alone loads nothing, so the folder would be meant for nobody."""
    with pytest.raises(LaunchError, match="NIM_PEFT_SOURCE is for engines that are started here"):
        plan_remote(settings(NIM_ENGINE_ENDPOINTS="engine:8001"))


def test_settings_of_adapters_without_a_folder_are_named() -> None:
    """They would do nothing."""
    names = ("NIM_PEFT_REFRESH_INTERVAL", "NIM_MAX_LORA_RANK", "NIM_MAX_GPU_LORAS", "NIM_MAX_CPU_LORAS")
    lines = list(unused_settings(Settings(), names))
    assert sorted(lines) == sorted(
        f"{name} has no effect: it is for LoRA adapters, and NIM_PEFT_SOURCE names none" for name in names
    )
    assert not list(unused_settings(settings(NIM_MODEL_VARIANT="31b"), names))


def test_start_on_the_demo_model_is_refused(tmp_path: Path) -> None:
    """As a user sees it: one line, the remedy, and an exit code that no restart changes."""
    done = console.run("gemma4-nim", "serve", "--dry-run", variables={"NIM_PEFT_SOURCE": str(tmp_path)})
    assert done.returncode == ExitCode.BAD_SETTINGS
    assert "llama.cpp loads no adapters: vLLM does" in done.stderr
