"""Detection of hardware: the real nvidia-ml-py over a stand-in of NVIDIA's library, on many described systems."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from config.devices import DeviceVariables
from launcher.hardware.detection import Driver, Gpu, GpuProcess, Problem, Sources, System, cuda_visible_devices, detect
from launcher.hardware.gpu_messages import CRASHED, Scan, assemble
from launcher.hardware.gpu_scan import scan_gpus
from tests.launcher import systems
from tests.launcher.fake_nvml import library

GIB = 1024**3
MIB = 1024**2
NOT_IN_A_SYSTEM = {
    "driver-crashed", "driver-failed", "driver-hung", "gpu-hung", "package-missing", "visible-devices",
}  # fmt: skip
"""Codes of problems that no description has; tests below make them."""
ROOT = Path(__file__).parents[2]

needs_compiler = pytest.mark.skipif(
    library.COMPILER is None, reason="no C compiler (cc) to build the stand-in for NVIDIA's library"
)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what lays out a system's library in a folder for ``LD_LIBRARY_PATH``."""
    base = tmp_path_factory.mktemp("nvml")
    built = {old: library.compile_library(base, old_driver=old) for old in (False, True)}

    @functools.cache
    def folder(name: str) -> Path:
        system = systems.describe(name)
        chosen = built[system.old_driver] if system.has_library else None
        return library.lay_out(base / name, chosen, library.facts(system))

    return folder


@pytest.fixture(scope="session")
def scans(folders: Callable[[str], Path]) -> dict[str, Scan]:
    """Read every system through nvidia-ml-py."""
    names = systems.names()
    paths = [folders(name) for name in names]
    searched = [str(paths[names.index("none")]), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    result = subprocess.run(
        [sys.executable, "-m", "tests.launcher.fake_nvml.scan_many", *map(str, paths)],
        env={**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(searched)},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    return {name: assemble(json.loads(line), "") for name, line in zip(names, lines, strict=True)}


@needs_compiler
@pytest.mark.parametrize("name", systems.names())
def test_what_is_described_is_what_is_detected(name: str, scans: dict[str, Scan]) -> None:
    """Through NVIDIA's own bindings each system looks exactly as the quick way to load it says."""
    system = systems.describe(name)
    with systems.root_of(system) as root:
        found = detect(Sources(root, system.cores, system.variables, lambda: scans[name]))

    assert found == systems.load(name)


@needs_compiler
@pytest.mark.parametrize(
    "name", ["h100-sxm-8", "mig-h100-shared", "gpu-lost", "old-driver", "no-cuda-container", "none"]
)
def test_the_whole_way_through_a_process_of_its_own(
    name: str, folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the launcher does it: a child process finds the library, and nothing is injected but the files around."""
    system = systems.describe(name)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folders(name)), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("NVIDIA_VISIBLE_DEVICES", raising=False)

    with systems.root_of(system) as root:
        assert detect(Sources(root, system.cores)) == systems.load(name)


def _library(base: Path, facts: dict[str, object]) -> Path:
    return library.lay_out(base / "facts", library.compile_library(base), facts.items())


TWO_GPUS: dict[str, object] = {
    "system.driver": "580.95.05", "system.cuda": 13000, "system.count": 2,
    "gpu.0.name": "NVIDIA L4", "gpu.0.uuid": "GPU-0", "gpu.0.pci": "0x27b810de", "gpu.0.capability": "8 9",
    "gpu.0.memory": f"{24 * GIB} {23 * GIB}",
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("trouble", ["@hang", "@crash"])
def test_a_gpu_that_hangs_or_crashes_the_query_does_not_hide_the_others(
    trouble: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was read before still counts; the GPU that stopped the query is named as unusable."""
    folder = _library(tmp_path, {**TWO_GPUS, "gpu.1.handle": trouble})
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder), prepend=os.pathsep)

    # On a busy machine the query may not have come to the second GPU after a second: then it is given more time.
    for timeout_s in (1, 5, 60):
        found = detect(Sources(tmp_path, 2, DeviceVariables(), functools.partial(scan_gpus, timeout_s)))
        if found.gpus and found.gpus[0].name == "NVIDIA L4":
            break

    assert [(gpu.name, gpu.problem and gpu.problem.code) for gpu in found.gpus] == [
        ("NVIDIA L4", None),
        ("unknown GPU", "gpu-hung"),
    ]


@needs_compiler
@pytest.mark.parametrize(
    ("trouble", "timeout_s", "code"), [("@hang", 1, "driver-hung"), ("@crash", 60, "driver-crashed")]
)
def test_a_driver_that_hangs_or_crashes_is_given_up(
    trouble: str, timeout_s: float, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The launcher goes on without GPUs, soon, and says what happened."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(_library(tmp_path, {"system.init": trouble})), prepend=os.pathsep)

    found = detect(Sources(tmp_path, 2, DeviceVariables(), lambda: scan_gpus(timeout_s)))

    assert [problem.code for problem in found.problems] == [code]
    assert found.gpus == ()


@needs_compiler
def test_a_process_name_cannot_write_to_the_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Names come from anyone's programs: folders and terminal codes are cut, bytes that are no text mean no name."""
    facts = {
        **TWO_GPUS, "system.count": 1, "gpu.0.compute_processes": "7 1048576 8 -",
        "process.7": "/opt/\x1b[31mevil\x1b[0m", "process.8": "\udcff\udcfe",
    }  # fmt: skip
    base = _library(tmp_path, {})
    text = "".join(f"{key}={value}\n" for key, value in facts.items())
    (base / "nvml.txt").write_bytes(text.encode(errors="surrogateescape"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(base), prepend=os.pathsep)

    (device,) = scan_gpus().devices

    assert [(holder.pid, holder.name, holder.memory) for holder in device.processes] == [
        (7, "[31mevil[0m", MIB),
        (8, None, None),
    ]


def test_without_a_process_to_ask_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine at its limits gets an answer, too."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    assert scan_gpus() == Scan(error=CRASHED)


@needs_compiler
def test_talk_of_others_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Modules that a site loads into every Python may write to its output; the report is found all the same."""
    (tmp_path / "sitecustomize.py").write_text("print('hello'); print('[1]')")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(_library(tmp_path, {**TWO_GPUS, "system.count": 1})), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(tmp_path))

    assert [device.name for device in scan_gpus().devices] == ["NVIDIA L4"]


def test_an_eight_gpu_server_in_full() -> None:
    """Each field of a GPU holds what the driver says of it."""
    system = systems.load("h100-sxm-8")

    assert system.driver == Driver("580.95.05", (13, 0))
    assert len({gpu.uuid for gpu in system.gpus}) == 8
    assert system.gpus[3] == Gpu(
        index=3,
        uuid=system.gpus[3].uuid,
        name="NVIDIA H100 80GB HBM3",
        pci_device_id="10de:2330",
        compute_capability=(9, 0),
        memory_total=81559 * MIB,
        memory_free=(81559 - 551) * MIB,
        nvlink_peers=frozenset({0, 1, 2, 4, 5, 6, 7}),
    )
    assert (system.cpu_model, system.cores) == ("Intel(R) Xeon(R) Platinum 8480C", 224)
    assert {"avx2", "avx512f", "amx_int8"} <= system.cpu_features
    assert (system.memory_total, system.memory_available) == (2016 * GIB, 1888 * GIB)
    assert system.problems == ()


def test_processes_that_hold_memory_are_named() -> None:
    """A busy GPU says who has its memory, and how much is left."""
    busy, free = systems.load("busy").gpus

    assert busy.processes == (
        GpuProcess(41877, "python3.12", 70144 * MIB),
        GpuProcess(41990, None, 1204 * MIB),
    )
    assert busy.memory_free == (81559 - 551 - 70144 - 1204) * MIB
    assert busy.problem is None
    assert free.processes == ()


def test_slices_are_devices_of_their_own() -> None:
    """Each slice has its memory, its profile and its processes; the divided GPU itself is no device."""
    system = systems.load("mig-h100-shared")

    assert [(gpu.index, gpu.mig_profile, gpu.memory_total // MIB) for gpu in system.gpus] == [
        (0, "3g.40gb", 40448),
        (0, "2g.20gb", 20096),
        (0, "1g.10gb", 9984),
        (1, None, 81559),
    ]
    assert [len(gpu.processes) for gpu in system.gpus] == [0, 1, 0, 0]
    assert all(gpu.uuid.startswith("MIG-") for gpu in system.gpus[:3])
    assert systems.load("mig-a100-1c.3g").gpus[0].mig_profile == "1c.3g.20gb"


def test_unified_memory_is_the_machines() -> None:
    """A board whose GPU has no memory of its own shows the machine's, whatever limits the container."""
    (gpu,) = systems.load("dgx-spark").gpus
    (inside,) = systems.load("dgx-spark-container").gpus

    assert gpu.unified_memory
    assert gpu.memory_total == int(119.7 * 1024**2) * 1024
    assert gpu.memory_free == int(113.5 * GIB)
    assert (inside.memory_total, inside.memory_free) == (gpu.memory_total, int(96.25 * GIB))
    assert systems.load("dgx-spark-container").memory_available == 30 * GIB
    assert systems.load("dgx-spark").cpu_model == "Arm Cortex-X925 + Arm Cortex-A725"
    assert "neon" in systems.load("dgx-spark").cpu_features


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("no-driver", "driver-missing", "nouveau drives it"),
        ("no-driver-container", "driver-missing", "--gpus all"),
        ("no-library-container", "driver-missing", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
        ("passed-to-vm", "driver-missing", "virtual machine"),
        ("no-module", "driver-not-loaded", "modprobe nvidia"),
        ("sees-no-gpu", "driver-sees-no-gpu", "580.95.05"),
        ("old-driver", "driver-too-old", "580.65.06"),
        ("no-cuda-container", "cuda-missing", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
        ("no-uvm-container", "cuda-missing", "nvidia-modprobe -u"),
        ("permission", "permission", "/dev/nvidiactl"),
        ("wsl-no-driver", "wsl", "on Windows"),
        ("wsl", "wsl", ".wslconfig"),
        ("driver-mismatch", "driver-mismatch", "570.133.20"),
        ("access-lost", "gpu-access-lost", "daemon-reload"),
        ("vgpu-c", "vgpu", "licence"),
        ("hidden", "gpus-hidden", "CUDA_VISIBLE_DEVICES=''"),
        ("mixed-second-first", "device-order", "CUDA_DEVICE_ORDER=PCI_BUS_ID"),
    ],
)
def test_what_is_wrong_with_the_system_is_named(name: str, code: str, words: str) -> None:
    """One problem, by its code, with words that lead to the repair."""
    (problem,) = systems.load(name).problems

    assert problem.code == code
    assert words in f"{problem.what}; {problem.remedy}"


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("gpu-lost", [None, None, None, "gpu-lost", None, None, None, None]),
        ("gpu-lost-only", ["gpu-lost"]),
        ("gpu-reset", ["gpu-reset-required", None]),
        ("permission-one", [None, "permission"]),
        ("mig-empty", ["mig-empty"]),
        ("vgpu-b", ["vgpu"]),
        ("vgpu-c", [None]),
        ("v100-4", ["gpu-too-old"] * 4),
        ("t4-1", [None]),
        ("old-driver", ["driver-too-old"] * 2),
        ("no-cuda-container", ["cuda-missing"]),
        ("no-uvm-container", ["cuda-missing"]),
        ("fabric-not-ready", ["fabric-not-ready"] * 8),
        ("compute-modes", ["compute-prohibited", None, "compute-exclusive", "mps"]),
        ("mps", [None]),
        ("wsl", [None]),
        ("forward-compatible", [None, None]),
    ],
)
def test_what_is_wrong_with_a_gpu_is_told_at_that_gpu(name: str, codes: list[str | None]) -> None:
    """Those that cannot be used say why; their neighbours stay usable."""
    assert [gpu.problem and gpu.problem.code for gpu in systems.load(name).gpus] == codes


@pytest.mark.parametrize("name", ["none", "none-container", "none-arm", "library-without-gpu"])
def test_a_machine_without_a_gpu_has_no_problem(name: str) -> None:
    """No driver is needed where there is no GPU."""
    system = systems.load(name)

    assert (system.gpus, system.driver, system.problems) == ((), None, ())


def test_limits_of_a_container_count() -> None:
    """Cores and memory are what the container may use, not what the machine has."""
    system = systems.load("none-container")

    assert (system.cores, system.memory_total, system.memory_available) == (4, 16 * GIB, int(12.5 * GIB))


def test_every_problem_has_a_remedy_and_is_documented() -> None:
    """A problem is a sentence, a remedy, and a code that docs/hardware.md explains; the page names no others."""
    page = (ROOT / "docs" / "hardware.md").read_text()
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE))
    found = systems_problems()

    assert all(problem.what and problem.remedy for problem in found)
    assert {problem.code for problem in found} | NOT_IN_A_SYSTEM == documented


def systems_problems() -> list[Problem]:
    """Return all problems of all described systems."""
    loaded = [systems.load(name) for name in systems.names()]
    of_gpus = [gpu.problem for system in loaded for gpu in system.gpus if gpu.problem]
    return [problem for system in loaded for problem in system.problems] + of_gpus


def test_an_engine_is_told_uuids() -> None:
    """What is passed on to an engine does not depend on how CUDA counts."""
    gpus = systems.load("mixed-second-first").gpus

    assert cuda_visible_devices(gpus) == ",".join(gpu.uuid for gpu in gpus)
    assert [gpu.index for gpu in gpus] == [1, 0]


def test_looking_loads_nothing_heavy() -> None:
    """The process that asks the driver starts for every command, so it must start fast."""
    heavy = "[m for m in ('pydantic', 'numpy', 'config') if m in sys.modules]"
    code = f"import sys, launcher.hardware.nvidia; sys.exit(str({heavy}))"

    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.stderr.strip() == "[]"


def test_catalogues_agree() -> None:
    """What tests take a GPU to be is what estimates for absent machines take it to be."""
    listed = {entry["name"]: entry for entry in yaml.safe_load((ROOT / "config" / "gpus.yaml").read_text())}
    models = yaml.safe_load((systems.DATA / "gpu_models.yaml").read_text())["gpus"].values()
    shared = [(model, listed[model["name"]]) for model in models if model["name"] in listed and "memory_mib" in model]

    assert len(shared) > 15
    for model, entry in shared:
        assert entry["memory_mib"] == model["memory_mib"], model["name"]
        assert entry["capability"] == ".".join(map(str, model["capability"])), model["name"]


def test_this_machine_can_be_looked_at() -> None:
    """Whatever machine runs the tests: no exception, at least one core."""
    system = detect()

    assert isinstance(system, System)
    assert system.cores >= 1
