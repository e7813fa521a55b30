"""A checkpoint of the user's own on described machines: which GPUs it gets, how much of them, or why none."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from config.environment import load_settings
from config.settings import Settings
from launcher.checkpoint import inspect_checkpoint
from launcher.hardware.system import System
from launcher.model import ModelFiles, find_model
from launcher.plan.own_model import plan_own_model
from launcher.plan.planner import Plan, Refusal
from tests.launcher import systems

DEMO = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe"
MOE_BYTES = 52 * 10**9


def _settings(**variables: str) -> Settings:
    return load_settings(environ={"NIM_MODEL_PATH": str(DEMO), "NIM_ENGINE": "vllm", **variables}).settings


def _model(engine: str = "vllm") -> ModelFiles:
    """Return a checkpoint of the 26B-A4B's shape and size."""
    settings = load_settings(environ={"NIM_MODEL_PATH": str(DEMO), "NIM_ENGINE": engine}).settings.model
    found = find_model(settings, engines=frozenset({engine}))
    shape = replace(found.shape, layers=30, experts=128, trained_context=262_144)
    return replace(found, shape=shape, weight_bytes=MOE_BYTES, names=("mine",))


def _plan(system: System, model: ModelFiles, **variables: str) -> Plan:
    plan = plan_own_model(_settings(**variables), system, model)
    assert isinstance(plan, Plan)
    return plan


def _refusal(system: System, model: ModelFiles, **variables: str) -> Refusal:
    refusal = plan_own_model(_settings(**variables), system, model)
    assert isinstance(refusal, Refusal)
    return refusal


@pytest.mark.parametrize(
    ("machine", "variables", "indices"),
    [
        ("h100-sxm-1", {}, [0]),
        ("busy", {}, [1]),
        ("mig-h100-shared", {}, [1]),
        ("h100-sxm-4", {"NIM_TENSOR_PARALLEL_SIZE": "4"}, [0, 1, 2, 3]),
        ("l40s-4", {"NIM_MAX_MODEL_LEN": "8192"}, [0, 1]),
    ],
)
def test_it_gets_gpus_as_a_profile_does(machine: str, variables: dict[str, str], indices: list[int]) -> None:
    """The free one, the whole one, as many as were asked for, or as it takes to hold it; with a share of each."""
    plan = _plan(systems.load(machine), _model(), **variables)

    assert [gpu.index for gpu in plan.gpus] == indices
    assert plan.gpu_memory_fraction is not None
    assert plan.memory_budget is not None
    assert plan.memory.total <= plan.memory_budget
    assert (plan.core, plan.names, plan.profile, plan.rejected) == ("vllm", ("mine",), None, ())
    assert plan.context_tokens == int(variables.get("NIM_MAX_MODEL_LEN", plan.context_tokens))


def test_wishes_for_memory_count() -> None:
    """A smaller share of the GPU, and no more context than the checkpoint was made for."""
    model = _model()
    short = replace(model, shape=replace(model.shape, trained_context=8192))

    assert _plan(systems.load("h200-1"), model, NIM_GPU_MEMORY_UTILIZATION="0.6").gpu_memory_fraction <= 0.6
    assert _plan(systems.load("h200-1"), short).context_tokens == 8192
    assert "NIM_MAX_MODEL_LEN=9000" in _refusal(systems.load("h200-1"), short, NIM_MAX_MODEL_LEN="9000").reason


@pytest.mark.parametrize(
    ("machine", "variables", "reason"),
    [
        ("l4-1", {}, "needs .* GiB even for 2048 tokens, and .* may be used of NVIDIA L4"),
        ("l4-1", {"NIM_TENSOR_PARALLEL_SIZE": "2"}, "it needs 2 usable GPUs of one kind"),
        ("h100-sxm-1", {"NIM_TENSOR_PARALLEL_SIZE": "3"}, "NIM_TENSOR_PARALLEL_SIZE=3"),
    ],
)
def test_what_does_not_fit_is_refused(machine: str, variables: dict[str, str], reason: str) -> None:
    """In words about the checkpoint, without remedies that name profiles."""
    refusal = _refusal(systems.load(machine), _model(), **variables)

    assert re.search(reason, refusal.reason)
    assert refusal.remedy
    assert "NIM_MODEL_PROFILE" not in refusal.remedy


def test_an_engine_that_is_unproven_there_is_taken_all_the_same() -> None:
    """Whoever brings a checkpoint and names TensorRT-LLM wants that, and is told."""
    plan = _plan(systems.load("h100-sxm-1"), _model("tensorrt_llm"), NIM_ENGINE="tensorrt_llm")

    assert plan.core == "tensorrt_llm"
    assert any(note.startswith("unproven: ") for note in plan.notes)


def test_without_a_gpu_it_is_planned_for_main_memory() -> None:
    """As vLLM's build for CPUs needs it; what was said about GPUs is not passed over in silence."""
    model = replace(_model(), weight_bytes=10**9)
    plan = _plan(systems.load("none"), model, NIM_TENSOR_PARALLEL_SIZE="2")

    assert plan.gpus == ()
    assert any("NIM_TENSOR_PARALLEL_SIZE=2 has no effect" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("quantised", "precision"),
    [
        (None, "bf16"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8}}}}, "fp8"),
    ],
)
def test_the_precision_is_read(quantised: object, precision: str, tmp_path: Path) -> None:
    """From config.json, whoever wrote it."""
    config = json.loads((DEMO / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": quantised}))
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(DEMO / name)

    assert inspect_checkpoint(tmp_path, _settings().model, frozenset({"vllm"})).precision == precision
