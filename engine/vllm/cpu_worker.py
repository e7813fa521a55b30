"""What runs inside vLLM's worker on a CPU when adapters are served: its worker, with two faults of 0.32.0 repaired.

vLLM imports this class by its name (``worker_cls``), so a version that cannot take it does not start. On GPUs adapters
are computed by other code, and nothing of this is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
from vllm.v1.worker.cpu_worker import CPUWorker


class Gemma4CpuWorker(CPUWorker):  # type: ignore[misc] # vLLM is not installed where types are checked
    """vLLM's worker on a CPU."""

    def load_model(self, *arguments: Any, **options: Any) -> None:
        """Load the model, after the repairs."""
        _spare_sequences_without_adapter()
        _keep_experts_on_the_cpu()
        super().load_model(*arguments, **options)


def _spare_sequences_without_adapter() -> None:
    """Compute nothing for rows that have no adapter, in a step in which others have one.

    They are marked by the slot -1, which torch takes for the last slot: they would get that one's adapter.
    """
    shrink = PunicaWrapperCPU._shrink_prefill  # noqa: SLF001 - vLLM has no other place for it

    def spared(self: PunicaWrapperCPU, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float) -> None:
        shrink(self, y, x, w_t_all, scale)
        if not self.no_lora:
            _, lengths, slots, *_ = self.prefill_metadata
            y[torch.repeat_interleave(slots, lengths) < 0] = 0

    PunicaWrapperCPU._shrink_prefill = spared  # noqa: SLF001


def _keep_experts_on_the_cpu() -> None:
    """Let experts be computed as without adapters.

    Where adapters are enabled vLLM takes kernels that could add them to experts, and those run on GPUs only. Ours leave
    the experts alone (``engine.vllm.adapter_files``).
    """
    initialise = FusedMoEConfig.__init__

    def without_adapters(self: FusedMoEConfig, *arguments: Any, **options: Any) -> None:
        initialise(self, *arguments, **options)
        self.is_lora_enabled = False

    FusedMoEConfig.__init__ = without_adapters
