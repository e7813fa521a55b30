"""Which GPUs an engine is shown: those of the plan and no others, at every start, until one of them is lost."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from config.environment import load_settings
from config.manifest import load_manifest
from launcher.engine_devices import check_devices, device_environment
from launcher.errors import ExitCode, LaunchError
from launcher.hardware.system import Problem, System
from launcher.model import find_model
from launcher.plan.planner import Plan, plan_profile
from launcher.workspace import Workspace
from tests.fakes import console
from tests.fakes.file_server import file_server
from tests.fakes.manifests import file_entry, write_manifest
from tests.fakes.processes import free_port
from tests.launcher import systems
from tests.launcher.fake_nvml import library

DEMO = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe"
ENGINES = frozenset({"llama_cpp", "vllm", "tensorrt_llm"})
GIB = 2**30
SHOWN = {"CUDA_VISIBLE_DEVICES": "GPU-3,GPU-1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
RECORDER = """
import json, os, pathlib, signal
folder = pathlib.Path({folder!r})
names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
with (folder / "starts").open("a") as file:
    file.write(json.dumps({{name: os.environ.get(name) for name in names}}) + chr(10))
if len((folder / "starts").read_text().splitlines()) > 1:
    facts = folder / "facts" / "nvml.txt"
    facts.write_text(facts.read_text() + "gpu.1.handle=!15" + chr(10))
os.kill(os.getpid(), signal.SIGUSR1)
"""
"""Stands for vLLM's library: notes what its process was shown, and crashes. The second time a GPU is lost as well."""


def _plan(name: str, **variables: str) -> Plan:
    settings = load_settings(environ=variables).settings
    plan = plan_profile(settings, systems.load(name), load_manifest(), ENGINES)
    assert isinstance(plan, Plan)
    return plan


def _shown(plan: Plan, folder: Path) -> list[str]:
    """Return what the engine's command would show its process."""
    folder.mkdir(exist_ok=True)
    files = find_model(load_settings(environ={}).settings.model)
    files = replace(files, checkpoint=DEMO if plan.gpus else None)
    command = Workspace(folder).commands(plan.with_files(files), DEMO / "tokenizer.json", {})[1]
    value = command.environment.get("CUDA_VISIBLE_DEVICES")
    return [] if value is None else value.split(",")


@pytest.mark.parametrize(
    ("name", "indices", "start"),
    [
        ("busy", [1], "GPU-"),
        ("mig-h100-3g.40gb", [0], "MIG-"),
        ("mixed-second-first", [1], "GPU-"),
        ("third-of-eight", [0], "GPU-"),
        ("h100-sxm-4", [0, 1], "GPU-"),
    ],
)
def test_the_chosen_gpus_are_shown(name: str, indices: list[int], start: str, tmp_path: Path) -> None:
    """By UUID, as the plan has them: the free one, the slice, the better one, the one that is allowed."""
    plan = _plan(name, NIM_TENSOR_PARALLEL_SIZE=str(len(indices)))
    shown = _shown(plan, tmp_path)

    assert [gpu.index for gpu in plan.gpus] == indices
    assert shown == [gpu.uuid for gpu in plan.gpus]
    assert all(uuid.startswith(start) for uuid in shown)
    assert len(set(shown)) == len(shown)


def test_a_plan_for_the_processor_shows_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The CPU engine gets neither variable, however many GPUs there are."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    plan = _plan("h100-sxm-2", NIM_TAGS_SELECTOR="llm_engine=llama_cpp")

    assert plan.core == "llama_cpp"
    assert _shown(plan, tmp_path) == []
    assert device_environment(plan.gpus) == {}


def _without(system: System, index: int) -> System:
    return replace(system, gpus=tuple(gpu for gpu in system.gpus if gpu.index != index))


def _silent(system: System, index: int, problem: Problem) -> System:
    """Return the system with one GPU that no longer answers: it has lost its UUID, and has a problem."""
    gpus = tuple(replace(gpu, uuid="", problem=problem) if gpu.index == index else gpu for gpu in system.gpus)
    return replace(system, gpus=gpus)


def test_a_gpu_that_is_lost_is_named() -> None:
    """With number, name, UUID, the driver's reason and what helps; the status is that of broken hardware."""
    system = systems.load("h100-sxm-2")
    gpus = system.gpus
    lost = Problem("gpu-lost", "GPU 1 (H100) has fallen off the bus", "restart the host")

    with pytest.raises(LaunchError, match=r"GPU 1 \(NVIDIA H100.*, GPU-.*is lost: .*has fallen off the bus") as caught:
        check_devices(gpus, lambda: _silent(system, 1, lost))
    assert caught.value.code is ExitCode.HARDWARE_FAULT
    assert caught.value.remedy.startswith("restart the host; or start again")
    with pytest.raises(LaunchError, match="the driver no longer knows it"):
        check_devices(gpus, lambda: _without(system, 1))
    with pytest.raises(LaunchError, match="different versions"):
        check_devices(gpus, lambda: systems.load("driver-mismatch"))


def test_what_may_pass_stops_no_start() -> None:
    """GPUs that are there, a loss that the plan has no part in, and a driver that is slow to answer."""
    system = systems.load("h100-sxm-2")
    hung = Problem("gpu-hung", "GPU 1 does not answer", "")
    taken = Problem("compute-exclusive", "GPU 0 takes one process at a time", "")
    silent = replace(system, gpus=(), problems=(Problem("driver-hung", "hung", ""),))

    check_devices(system.gpus, lambda: system)
    check_devices(system.gpus[:1], lambda: _without(system, 1))
    check_devices(system.gpus, lambda: _silent(system, 1, hung))
    check_devices(system.gpus, lambda: replace(system, gpus=(replace(system.gpus[0], problem=taken), system.gpus[1])))
    check_devices(system.gpus, lambda: silent)


@pytest.mark.skipif(library.COMPILER is None, reason="no C compiler (cc) to build the stand-in for NVIDIA's library")
def test_a_real_start_shows_its_engine_the_planned_gpus(tmp_path: Path) -> None:
    """What it got: the linked pair of those allowed, in the caller's order, again after a crash; then the loss.

    The launcher, the scan of the GPUs and the engine's process are real; NVIDIA's and vLLM's libraries are stand-ins.
    """
    done = _serve(tmp_path)
    starts = _starts(tmp_path)

    console.fails_well(done, ExitCode.HARDWARE_FAULT, "GPU 1 (NVIDIA L4, GPU-1), which the engine runs on, is lost")
    assert len(starts) > 1
    assert all(start == SHOWN for start in starts)
    assert "CUDA_VISIBLE_DEVICES=GPU-3,GPU-1  CUDA_DEVICE_ORDER=PCI_BUS_ID" in done.stdout


def _starts(folder: Path) -> list[dict[str, str]]:
    """Return what the engine was shown at each of its starts."""
    return [json.loads(line) for line in (folder / "starts").read_text().splitlines()]


def _serve(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``nim-serve`` to its end on four GPUs in two linked pairs, of which the caller allows three."""
    facts: dict[str, object] = {
        "system.driver": "580.95.05", "system.cuda": 13000, "system.cuda_library": 13000, "system.count": 4,
    }  # fmt: skip
    for index in range(4):
        facts |= {
            f"gpu.{index}.name": "NVIDIA L4", f"gpu.{index}.uuid": f"GPU-{index}", f"gpu.{index}.pci": "0x27b810de",
            f"gpu.{index}.capability": "8 9", f"gpu.{index}.memory": f"{24 * GIB} {23 * GIB}",
            f"gpu.{index}.peers": (index + 2) % 4,
        }  # fmt: skip
    nvml = library.lay_out(folder / "facts", library.compile_library(folder), facts.items())
    for name in ("torch", "vllm"):
        (folder / "python" / name).mkdir(parents=True)
        (folder / "python" / name / "__init__.py").write_text(RECORDER.format(folder=str(folder)))
    files = ("config.json", "model.safetensors", "tokenizer.json")
    with file_server(DEMO) as server:
        entries = {name: file_entry(server.url, DEMO / name) for name in files}
        tags = {"llm_engine": "vllm", "precision": "bf16", "tp": "2"}
        write_manifest(folder / "manifest.yaml", (tags, entries))
        variables = {
            "NIM_MANIFEST_PATH": str(folder / "manifest.yaml"), "NIM_CACHE_PATH": str(folder / "cache"),
            "NIM_SERVER_PORT": str(free_port()), "CUDA_VISIBLE_DEVICES": "3,2,1", "PYTHONPATH": str(folder / "python"),
            "LD_LIBRARY_PATH": os.pathsep.join([str(nvml), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
        }  # fmt: skip
        return console.run("nim-serve", variables=variables)
