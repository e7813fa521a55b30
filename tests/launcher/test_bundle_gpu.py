"""A bundle for a GPU engine on its way to a server: planned for described machines, refused on all others.

No engine runs here. The bundle is a prebuilt one that is finished by hand, as a warm-up on such a machine would do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from config.runtime import EngineRuntime
from config.settings import EngineSettings, ModelSettings, Settings
from engine_build.checksums import files_below, record_files
from engine_build.errors import TrialError
from engine_build.manifest import MANIFEST, read_manifest, write_manifest
from launcher.bundle.building import build_bundle
from launcher.bundle.machine import hardware_of
from launcher.bundle.order import Wanted, take_order
from launcher.bundle.planning import bundle_plan
from launcher.bundle.serving import check_all
from launcher.commands.choice import look_around
from launcher.download.progress import Silent
from launcher.errors import LaunchError
from launcher.hardware.system import System
from launcher.plan.planner import Plan, Refusal
from launcher.workspace import Workspace
from tests.launcher.systems import load

DEMO = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe"
VERSION = "1.4.0"


class _Nobody:
    """Watches nothing."""

    def step(self, *_: object) -> None: ...

    def waiting(self, note: str) -> None: ...


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have the GPU engines count as installed, and keep bundles and settings of this test apart."""
    for name in [name for name in os.environ if name.startswith("NIM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NIM_CACHE_PATH", str(tmp_path))
    monkeypatch.setattr("launcher.bundle.serving.engine_version", lambda _: VERSION)
    monkeypatch.setattr("launcher.bundle.building.engine_version", lambda _: VERSION)
    monkeypatch.setattr("launcher.checkpoint.available_engines", lambda: frozenset({"vllm", "tensorrt_llm"}))


@pytest.fixture
def finished() -> Callable[..., Path]:
    """Return what makes a bundle that was warmed up on a machine."""

    def make(engine: str, system: System, gpus: int = 1, checkpoint: Path = DEMO) -> Path:
        wanted = Wanted(folder=checkpoint, engine=engine, precision="bf16", tensor_parallel=gpus, prebuild_only=True)
        path = build_bundle(look_around(), wanted, _Nobody()).path
        (path / "caches" / "triton").mkdir(parents=True)
        (path / "caches" / "triton" / "kernel").write_text("compiled")
        manifest = read_manifest(path)
        hardware = hardware_of(system, engine, system.gpus[:gpus])
        update = {
            "stage": "complete",
            "pending": (),
            "fingerprint": manifest.fingerprint.model_copy(update={"hardware": hardware}),
            "files": record_files(path, [name for name in files_below(path) if name != MANIFEST]),
        }
        write_manifest(path, manifest.model_copy(update=update))
        return path

    return make


def idle(system: System) -> System:
    """Return a machine whose GPUs are all free."""
    return replace(system, gpus=tuple(replace(gpu, memory_free=gpu.memory_total) for gpu in system.gpus))


def _plan(path: Path, system: System, settings: Settings | None = None) -> Plan:
    plan = bundle_plan(path, settings or Settings(), system)
    assert isinstance(plan, Plan)
    return plan


@pytest.mark.parametrize("engine", ["vllm", "tensorrt_llm"])
def test_the_engine_gets_what_the_bundle_holds(finished: Callable[..., Path], tmp_path: Path, engine: str) -> None:
    """Its limits, its checkpoint, its folder, its GPUs, and a copy of its caches to write into."""
    system = idle(load("b200-8"))
    path = finished(engine, system, 2)
    plan = _plan(path, system)
    workspace = Workspace(tmp_path / "run")
    workspace.folder.mkdir()

    command = workspace.commands(plan, plan.model.tokenizer, {})[1]
    runtime = EngineRuntime.model_validate_json(Path(command.arguments[-1]).read_bytes())

    assert runtime.core == engine
    assert runtime.checkpoint_path.resolve() == DEMO
    assert runtime.bundle_path == path
    assert runtime.precision == "bf16"
    assert runtime.tensor_parallel == 2
    assert (runtime.context_tokens, runtime.max_sequences) == (8192, 64)
    assert command.environment["CUDA_VISIBLE_DEVICES"] == ",".join(gpu.uuid for gpu in system.gpus[:2])
    kernels = Path(command.environment["TRITON_CACHE_DIR"])
    assert (kernels / "kernel").read_text() == "compiled"
    assert not kernels.is_relative_to(path)
    (kernels / "another").write_text("compiled while serving")
    check_all(path, read_manifest(path), None, Silent())


@pytest.mark.parametrize(
    ("machine", "count", "expected"), [("busy", 1, [1]), ("h100-nvl-2", 2, [0, 1]), ("none", 1, [])]
)
def test_an_engine_is_tried_out_on_the_gpus_with_most_memory(machine: str, count: int, expected: list[int]) -> None:
    """A build beside somebody else's model takes the GPU that is free, and shows its engine no other."""
    scenery = replace(look_around(), system=load(machine), engines=frozenset({"vllm"}))
    order = take_order(scenery, Wanted(folder=DEMO, engine="vllm", tensor_parallel=count), Silent())

    assert [gpu.index for gpu in order.gpus] == expected
    there = Wanted(folder=DEMO, engine="vllm", tensor_parallel=count, gpus="8xB200", prebuild_only=True)
    assert take_order(scenery, there, Silent()).gpus == ()


def test_a_trial_is_shown_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that tries the engine out gets them as a server's would."""
    shown: list[str] = []

    def trial(_: object, variables: Mapping[str, str], *__: object) -> NoReturn:
        shown.append(variables["CUDA_VISIBLE_DEVICES"])
        raise TrialError("no GPU here")

    monkeypatch.setattr("engine_build.build.run_trial", trial)
    system = load("busy")
    scenery = replace(look_around(), system=system, engines=frozenset({"vllm"}))
    with pytest.raises(LaunchError, match="no GPU here"):
        build_bundle(scenery, Wanted(folder=DEMO, engine="vllm"), _Nobody())

    assert shown == [system.gpus[1].uuid]


def test_frozen_arguments_are_those_of_the_start(finished: Callable[..., Path], tmp_path: Path) -> None:
    """TensorRT-LLM is started with what the bundle froze, and with the checkpoint that it refers to."""
    from engine.tensorrt_llm.arguments import llm_arguments, starting_arguments  # noqa: PLC0415

    system = idle(load("b200-1"))
    plan = _plan(finished("tensorrt_llm", system), system)
    workspace = Workspace(tmp_path / "run")
    workspace.folder.mkdir()
    command = workspace.commands(plan, plan.model.tokenizer, {})[1]
    runtime = EngineRuntime.model_validate_json(Path(command.arguments[-1]).read_bytes())

    assert starting_arguments(runtime) == llm_arguments(runtime)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ("b300-8", "device: built for NVIDIA B200, here NVIDIA B300"),
        ("h200-1", "capability: built for 10.0, here 9.0"),
    ],
)
def test_another_machine_is_refused_by_name(finished: Callable[..., Path], machine: str, words: str) -> None:
    """GPU and compute capability are told, as they were and as they are."""
    path = finished("tensorrt_llm", load("b200-1"))

    with pytest.raises(LaunchError) as caught:
        bundle_plan(path, Settings(), idle(load(machine)))

    assert words in caught.value.message


def test_another_driver_is_refused_by_name(finished: Callable[..., Path]) -> None:
    """The same GPU under another driver compiles anew, so it is another bundle."""
    system = idle(load("b200-1"))
    path = finished("vllm", system)

    with pytest.raises(LaunchError, match=r"driver: built for [\d.]+, here 999\.1"):
        bundle_plan(path, Settings(), replace(system, driver=replace(system.driver, version="999.1")))


def test_a_busy_gpu_is_named(finished: Callable[..., Path]) -> None:
    """What the engine was started with must be free; else the GPU and both amounts are told."""
    system = idle(load("b200-1"))
    path = finished("vllm", system)
    busy = replace(system, gpus=(replace(system.gpus[0], memory_free=2**30),))

    refused = bundle_plan(path, Settings(), busy)

    assert isinstance(refused, Refusal)
    assert "NVIDIA B200 has 1.0 GiB free, and the bundle was built with" in refused.reason


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(model=ModelSettings(max_model_len=16384)), "NIM_MAX_MODEL_LEN=16384 is more than the 8192"),
        (Settings(engine=EngineSettings(max_num_seqs=100)), "NIM_MAX_NUM_SEQS=100 is more than the 64"),
    ],
    ids=["context", "sequences"],
)
def test_more_than_it_was_built_for_is_refused(finished: Callable[..., Path], settings: Settings, words: str) -> None:
    """Less is served; more would be another engine."""
    system = idle(load("b200-1"))
    path = finished("tensorrt_llm", system)

    refused = bundle_plan(path, settings, system)

    assert isinstance(refused, Refusal)
    assert words in refused.reason
    assert _plan(path, system, Settings(model=ModelSettings(max_model_len=4096))).context_tokens == 4096


def test_a_changed_checkpoint_beside_the_bundle_is_named(finished: Callable[..., Path], tmp_path: Path) -> None:
    """A checkpoint that the bundle only refers to is checked like its own files."""
    beside = tmp_path / "models" / "demo-moe"
    beside.mkdir(parents=True)
    for source in DEMO.iterdir():
        (beside / source.name).write_bytes(source.read_bytes())
    path = finished("vllm", load("b200-1"), checkpoint=beside)
    assert not Path(read_manifest(path).source.path).is_absolute()
    check_all(path, read_manifest(path), None, Silent())
    (beside / "tokenizer.json").write_bytes((beside / "tokenizer.json").read_bytes() + b" ")

    with pytest.raises(LaunchError, match=r"tokenizer\.json has \d+ bytes, not \d+"):
        check_all(path, read_manifest(path), None, Silent())
