"""Variables of CUDA and of NVIDIA's container runtime that choose GPUs: read here, understood by the launcher.

They are not ours, so they are no settings: their names and meaning are fixed elsewhere, and engines read them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from config.environment import child_environment


@dataclass(frozen=True, slots=True)
class DeviceVariables:
    """What the user or the container runtime said about GPUs; None where a variable is not set.

    Attributes:
        cuda_visible_devices: ``CUDA_VISIBLE_DEVICES``; empty means no GPU at all.
        nvidia_visible_devices: ``NVIDIA_VISIBLE_DEVICES``.
        cuda_device_order: ``CUDA_DEVICE_ORDER``.
        mps_pipe_directory: ``CUDA_MPS_PIPE_DIRECTORY``, where an MPS server listens.
    """

    cuda_visible_devices: str | None = None
    nvidia_visible_devices: str | None = None
    cuda_device_order: str | None = None
    mps_pipe_directory: str | None = None


def device_variables(environ: Mapping[str, str] | None = None) -> DeviceVariables:
    """Return the variables of ``environ``; None reads this process's environment."""
    given = child_environment({}) if environ is None else environ
    return DeviceVariables(
        cuda_visible_devices=given.get("CUDA_VISIBLE_DEVICES"),
        nvidia_visible_devices=given.get("NVIDIA_VISIBLE_DEVICES"),
        cuda_device_order=given.get("CUDA_DEVICE_ORDER"),
        mps_pipe_directory=given.get("CUDA_MPS_PIPE_DIRECTORY"),
    )
