"""What the launcher decided, handed to the processes that it starts: one JSON file for the engine, one for the API.

Users set ``NIM_*`` variables (``config.settings``); the launcher turns them into a plan and writes these two records.
Neither process has to repeat a decision, and both can be started by hand from such a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EngineRuntime(BaseModel):
    """Everything that ``python -m engine --runtime FILE`` needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    core: Literal["llama_cpp"] = "llama_cpp"
    model_path: Path
    """The GGUF file of the text model."""
    mmproj_path: Path | None = None
    """The GGUF file of the vision tower; None serves text only."""
    tokenizer_path: Path
    """``tokenizer.json`` of the model, for grammars."""
    endpoint: str
    """Where to listen, in gRPC's form: ``unix:/path`` or ``host:port``."""
    context_tokens: int = Field(gt=0)
    """Prompt plus completion of one sequence, in tokens."""
    max_sequences: int = Field(default=8, gt=0)
    max_queued: int = Field(default=256, ge=0)
    threads: int = Field(default=1, gt=0)
    gpu_layers: int = Field(default=0, ge=0)


class ApiRuntime(BaseModel):
    """Everything that ``python -m api --runtime FILE`` needs besides the user's own settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine_endpoints: tuple[str, ...]
    """gRPC addresses of the engine: ``unix:/path`` or ``host:port``."""
    tokenizer_path: Path
    served_names: tuple[str, ...]
    """Names under which requests may address the model; the first is echoed in responses."""
    stop_tokens: tuple[str, ...] = ("<eos>", "<turn|>", "<|tool_response>")
    """Tokens that end a model turn, by name: ids differ between vocabularies."""
    created: int
    """Unix seconds shown as the model's creation time."""
    listen_fd: int | None = None
    """A listening socket that this process inherits; None makes it open the port itself."""
    status_path: Path | None = None
    """JSON file in which the launcher tells its phase, shown in the body of ``/v1/health/ready`` until ready."""
