"""What planning results in: a plan or a refusal, and for every profile that was not chosen the reason and a remedy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from config.manifest import Profile
from config.settings_adapters import AdapterSettings
from launcher.errors import ExitCode, LaunchError
from launcher.hardware.system import Gpu
from launcher.memory import MemoryEstimate
from launcher.model import ModelFiles
from launcher.plan.transport import EMBEDDED, Transport


class Verdict(StrEnum):
    """How far a profile got; NIM's listing groups by this."""

    RUNNABLE = "runnable"
    """It would run here; another one was preferred, or the settings ask for something else."""
    LOW_MEMORY = "low-memory"
    """It would run here with more free memory."""
    INCOMPATIBLE = "incompatible"
    """It cannot run on this hardware or in this image."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a profile was not chosen.

    Attributes:
        code: a short stable name of the reason for programs, such as ``memory`` or ``ranked-lower``.
        reason: one sentence.
        remedy: what to do, with a variable or a command.
        required_bytes: memory of each GPU (or of the machine, for the CPU engine) that the wanted context needs.
        smallest_bytes: the same with the smallest useful context.
    """

    profile: Profile
    verdict: Verdict
    code: str
    reason: str
    remedy: str
    required_bytes: int
    smallest_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What will run.

    Attributes:
        names: names for requests, the first is the main one.
        core: the engine: ``llama_cpp``, ``vllm`` or ``tensorrt_llm``.
        context_tokens: prompt plus completion of one request.
        wanted_context: what was asked for, or the usual figure; more than ``context_tokens`` where memory is short.
        max_sequences: requests that generate at the same time.
        full_sequences: how many of them may have the full context at the same time; more wait for free cache.
        batch_tokens: tokens that one step of a GPU engine computes at most; 0 for the CPU engine.
        memory: of each GPU, or of the machine for the CPU engine, with ``full_sequences`` sequences in the cache.
        memory_available: bytes that are free there; None when it cannot be told.
        memory_budget: bytes of them that the engine may take.
        cuda_graphs: whether a GPU engine captures CUDA graphs.
        why: one line on the choice.
        notes: what a person should know, such as why a figure is not the usual one.
        profile: from the manifest; None for a model of the user's own.
        files: the model's files; None until those of the profile have been downloaded.
        gpus: the devices to use, in the order in which the engine sees them; empty for the CPU engine.
        rejected: every other profile of the manifest.
        transport: the server that carries the engine.
        adapters: where LoRA adapters are; None serves none.
    """

    names: tuple[str, ...]
    host: str
    port: int
    core: str
    context_tokens: int
    wanted_context: int
    max_sequences: int
    full_sequences: int
    max_queued: int
    threads: int
    memory: MemoryEstimate
    memory_available: int | None
    memory_budget: int | None
    why: str
    notes: tuple[str, ...]
    batch_tokens: int = 0
    cuda_graphs: bool = False
    profile: Profile | None = None
    files: ModelFiles | None = None
    gpus: tuple[Gpu, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    transport: Transport = EMBEDDED
    adapters: AdapterSettings | None = None

    @property
    def model(self) -> ModelFiles:
        """Return the model's files.

        Raises:
            LaunchError: they have not been downloaded yet.
        """
        if self.files is None:
            name = self.profile.name if self.profile else self.names[0]
            raise LaunchError(ExitCode.CANNOT_START, f"the files of {name} are not there yet", "download-to-cache")
        return self.files

    @property
    def tensor_parallel(self) -> int:
        """Return over how many GPUs the model is spread, 1 for the CPU engine."""
        return max(len(self.gpus), 1)

    @property
    def cache_tokens(self) -> int:
        """Return how many tokens the cache holds when all sequences have the full context."""
        return self.full_sequences * self.context_tokens

    @property
    def gpu_memory_fraction(self) -> float | None:
        """Return the share of each GPU's whole memory that the engine may take; None for the CPU engine."""
        if not self.gpus or self.memory_budget is None:
            return None
        # Rounded down, so that it never stands for more than the budget.
        return self.memory_budget * 1000 // min(gpu.memory_total for gpu in self.gpus) / 1000

    def with_files(self, files: ModelFiles) -> Plan:
        """Return the plan with the files that were downloaded for it."""
        return replace(self, files=files)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing can run here, and what would help.

    Attributes:
        rejected: every profile that was considered; empty when settings or a model's own files rule everything out.
        code: the short name of the reason: ``settings`` when no machine would help, else that of a ``Rejection``.
    """

    reason: str
    remedy: str
    rejected: tuple[Rejection, ...] = ()
    code: str = "settings"
