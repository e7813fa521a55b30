"""How much an engine is built for: lengths, numbers of sequences and GPUs. It belongs to every bundle."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """What an engine is started with, and was warmed up for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    context_tokens: int = Field(gt=0)
    max_sequences: int = Field(gt=0)
    tensor_parallel: int = Field(default=1, gt=0)
    gpu_memory_fraction: float = Field(default=0.9, gt=0, le=1)
