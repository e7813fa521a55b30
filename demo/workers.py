"""Processes that train one model together, each on a share of every step's conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

_Part = TypeVar("_Part")
_LONGEST_WAIT = timedelta(hours=6)
"""For another process: one trains the vision tower while the others wait."""


@dataclass(frozen=True)
class Workers:
    """Which of how many processes this is; all hold the same weights after every step."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, rank: int, count: int, meeting: Path) -> Workers:
        """Find the others through a file that nobody used before."""
        if count > 1:
            dist.init_process_group("gloo", init_method=meeting.absolute().as_uri(), rank=rank, world_size=count, timeout=_LONGEST_WAIT)
        return cls(rank, count)

    @property
    def is_first(self) -> bool:
        """Tell whether this is the process that writes files."""
        return self.rank == 0

    @property
    def is_last(self) -> bool:
        """Tell whether this is the process that trains the tower."""
        return self.rank == self.count - 1

    def own(self, shares: int) -> range:
        """Return the numbers of this process's shares of a step."""
        return range(self.rank, shares, self.count)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by the sum of all processes'."""
        if self.count == 1:
            return
        grads = [value.grad for value in parameters if value.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def copy_from_first(self, model: nn.Module) -> None:
        """Give all processes the first one's weights; waits for it."""
        if self.count > 1:
            for value in model.state_dict().values():
                dist.broadcast(value, 0)

    def exchange(self, dealt: Sequence[Sequence[nn.Parameter]]) -> None:
        """Copy the parameters dealt to each process from there to all others."""
        if self.count == 1:
            return
        for rank, part in enumerate(dealt):
            flat = torch.cat([value.detach().flatten() for value in part])
            dist.broadcast(flat, rank)
            for value, new in zip(part, flat.split([value.numel() for value in part]), strict=True):
                value.data.copy_(new.view_as(value))

    def gather(self, part: _Part) -> list[_Part]:
        """Return the parts of all processes in their order."""
        parts = [part] * self.count
        if self.count > 1:
            dist.all_gather_object(parts, part)
        return parts

    def leave(self) -> None:
        """Say goodbye to the others."""
        if self.count > 1:
            dist.destroy_process_group()
