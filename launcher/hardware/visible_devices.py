"""Which GPUs the engine will see, and in which order: ``NVIDIA_VISIBLE_DEVICES``, then ``CUDA_VISIBLE_DEVICES``.

The first is a wish to the container runtime, which renumbers what it lets in; here it counts only where no runtime has
acted on it. The second follows CUDA's own rules (CUDA Programming Guide, "CUDA Environment Variables"), except that
numbers always count as ``nvidia-smi`` does. Whoever starts an engine passes the chosen UUIDs on, so both agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from config.devices import DeviceVariables
from launcher.hardware.gpu_messages import Device
from launcher.hardware.system import Gpu, Problem

CUDA: Final = "CUDA_VISIBLE_DEVICES"
NVIDIA: Final = "NVIDIA_VISIBLE_DEVICES"
_LEGACY_MIG: Final = re.compile(r"MIG-(GPU-[0-9a-f-]+)/(\d+)/(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Selection:
    """The visible devices in their order, and what there is to say about how they were chosen."""

    devices: tuple[Device, ...]
    problems: tuple[Problem, ...] = ()


def select_devices(devices: Sequence[Device], variables: DeviceVariables) -> Selection:
    """Apply both variables to all devices of the machine; pure."""
    allowed = _by_runtime(devices, variables.nvidia_visible_devices)
    chosen = _by_cuda(allowed.devices, variables.cuda_visible_devices)
    problems = [*allowed.problems, *chosen.problems]
    if devices and not chosen.devices:
        name, value = (
            (CUDA, variables.cuda_visible_devices) if allowed.devices else (NVIDIA, variables.nvidia_visible_devices)
        )
        number = len({device.index for device in devices})
        what = f"{name}={value!r} hides {'the only GPU' if number == 1 else f'all {number} GPUs'} of this machine"
        problems.append(Problem("gpus-hidden", what, f"unset {name}, or list GPUs as nvidia-smi -L shows them"))
    elif (problem := _order_problem(devices, variables)) is not None:
        problems.append(problem)
    return Selection(chosen.devices, tuple(problems))


def cuda_visible_devices(gpus: Sequence[Gpu]) -> str:
    """Return the ``CUDA_VISIBLE_DEVICES`` that makes an engine see exactly these, whatever order CUDA prefers."""
    return ",".join(gpu.uuid for gpu in gpus)


def _by_runtime(devices: Sequence[Device], value: str | None) -> Selection:
    """Apply ``NVIDIA_VISIBLE_DEVICES`` unless a container runtime has done so."""
    # With "void" a runtime adds nothing, and CDI sets it in every container that it has given GPUs. A path means that
    # the list came by volume mounts.
    given = (value or "").strip()
    if given.lower() in ("", "void", "all") or given.startswith("/"):
        return Selection(tuple(devices))
    if given.lower() == "none":
        return Selection(())
    # CDI writes names such as nvidia.com/gpu=0.
    entries = [entry.strip().rpartition("=")[2] for entry in given.split(",") if entry.strip()]
    if "all" in entries or _already_applied(devices, entries):
        return Selection(tuple(devices))
    found = [(entry, _matches(devices, entry)) for entry in entries]
    missing = [entry for entry, matches in found if not matches]
    problems = [_missing_problem(NVIDIA, given, entry, devices, "they are left out") for entry in missing[:1]]
    return Selection(_once(device for _, matches in found for device in matches), tuple(problems))


def _already_applied(devices: Sequence[Device], entries: Sequence[str]) -> bool:
    # Inside, the runtime's numbers start from 0 again, so they cannot be compared; how many there are can.
    numbers_only = all(re.fullmatch(r"\d+(:\d+)?", entry) for entry in entries)
    return numbers_only and len({device.index for device in devices}) <= len(entries)


def _by_cuda(devices: Sequence[Device], value: str | None) -> Selection:
    """Apply ``CUDA_VISIBLE_DEVICES``: order kept, nothing from the first invalid entry on, nothing with repeats."""
    if value is None:
        return Selection(tuple(devices))
    chosen: list[Device] = []
    for entry in (part.strip() for part in value.split(",")) if value.strip() else ():
        if re.match(r"-\d|NoDevFiles\Z", entry):
            break  # The usual ways to say: no more.
        # CUDA reads numbers as strtoul does: 1x is 1.
        digits = re.match(r"\d+", entry)
        found = _matches(devices, digits.group() if digits else entry)
        if _is_ambiguous(entry, found):
            what = f"{CUDA}={value!r}: {entry!r} fits several GPUs, so that entry and all after it count for nothing"
            remedy = "write more of the UUID, as nvidia-smi -L shows it"
            return Selection(tuple(chosen), (Problem("visible-devices", what, remedy),))
        if not found:
            rest = "that entry and all after it count for nothing, as CUDA does it"
            return Selection(tuple(chosen), (_missing_problem(CUDA, value, entry, devices, rest),))
        if found[0] in chosen:
            what = f"{CUDA}={value!r} has {entry!r} twice, and CUDA then shows no GPU at all"
            return Selection((), (Problem("visible-devices", what, f"name each GPU once in {CUDA}"),))
        # A divided GPU stands for its first slice: CUDA gives a process one.
        chosen.append(found[0])
    return Selection(tuple(chosen))


def _is_ambiguous(entry: str, found: Sequence[Device]) -> bool:
    one_slice = entry.upper().startswith("MIG-")
    return len({device.index for device in found}) > 1 or (one_slice and len(found) > 1)


def _matches(devices: Sequence[Device], entry: str) -> list[Device]:
    """Return the devices that an entry names: a number, ``GPU:SLICE``, the start of a UUID, or a slice's old name."""
    if entry.isdigit():
        # Where a first variable left out some, the rest counts from 0, as it does inside a container.
        indices = sorted({device.index for device in devices})
        return [device for device in devices if indices.index(device.index) == int(entry)]
    if re.fullmatch(r"\d+:\d+", entry):
        number, part = entry.split(":")
        return _matches(devices, number)[int(part) : int(part) + 1]
    if old := _LEGACY_MIG.fullmatch(entry):
        parent, *instances = old.groups()
        wanted = tuple(int(number) for number in instances)
        return [device for device in _by_uuid(devices, parent) if device.mig_instances == wanted]
    return _by_uuid(devices, entry) if entry.upper().startswith(("GPU-", "MIG-")) else []


def _by_uuid(devices: Sequence[Device], start: str) -> list[Device]:
    """Return devices whose UUID, or whose GPU's UUID, begins so."""
    lower = start.lower()
    return [
        device
        for device in devices
        if device.uuid.lower().startswith(lower) or device.parent_uuid.lower().startswith(lower)
    ]


def _once(devices: Iterator[Device]) -> tuple[Device, ...]:
    return tuple(dict.fromkeys(devices))


def _missing_problem(name: str, value: str, entry: str, devices: Sequence[Device], rest: str) -> Problem:
    there = ", ".join(dict.fromkeys(str(device.index) for device in devices)) or "none"
    what = f"{name}={value!r}: {entry!r} is no GPU of this machine (it has {there}); {rest}"
    return Problem("visible-devices", what, f"list GPUs in {name} by number or UUID, as nvidia-smi -L shows them")


def _order_problem(devices: Sequence[Device], variables: DeviceVariables) -> Problem | None:
    """Warn where CUDA, by its default of the fastest first, would count different GPUs otherwise than we do."""
    numbers = re.search(r"(?:^|,)\s*\d", variables.cuda_visible_devices or "")
    names = {device.name for device in devices if device.name}
    if not numbers or len(names) < 2 or variables.cuda_device_order == "PCI_BUS_ID":  # noqa: PLR2004 - different ones
        return None
    return Problem(
        "device-order",
        f"{CUDA}={variables.cuda_visible_devices!r} numbers GPUs of different kinds as nvidia-smi does; "
        "other CUDA programs count the fastest first",
        f"set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name GPUs by UUID in {CUDA}",
    )
