"""What moves the weights: Muon the matrices inside the layers, AdamW all that is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn


def make_optimizers(matrices: Sequence[nn.Parameter], others: Iterable[nn.Parameter], matrix_rate: float, other_rate: float) -> list[torch.optim.Optimizer]:
    """Make both optimizers; an update by Muon has the size that AdamW's would have at the same rate."""
    return [
        torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def set_rates(optimizers: Sequence[torch.optim.Optimizer], share: float) -> None:
    """Set the learning rates to a share of those that the optimizers were made with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group.setdefault("full_lr", group["lr"])
