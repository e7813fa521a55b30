"""What the launcher decided, handed to the processes that it starts: one JSON file for the engine, one for the API.

Users set ``NIM_*`` variables (``config.settings``); the launcher turns them into a plan and writes these two records.
Neither process has to repeat a decision, and both can be started by hand from such a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from config.api_keys import ApiKey

_LARGEST_PORT = 65_535


class AdapterRuntime(BaseModel):
    """The LoRA adapters that an engine serves beside its model; the values are those of ``AdapterSettings``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    refresh_s: float = Field(default=0.0, ge=0)
    max_rank: int = Field(default=32, ge=1)
    max_gpu: int = Field(default=8, ge=1)
    max_cpu: int = Field(default=16, ge=1)
    reserved_names: tuple[str, ...] = ()
    """Names of the model itself, which no adapter may have."""


class EngineCluster(BaseModel):
    """The place of an engine process among those on several machines that share one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: int = Field(ge=2)
    """How many machines; each has the same number of GPUs."""
    rank: int = Field(ge=0)
    """Which of them this is, from 0. That one serves the requests."""
    leader: str = Field(pattern=r"^[^\s:]+:[0-9]{1,5}$")
    """``host:port`` of rank 0, where all meet. This port and the next must be free there, and reached by all."""

    @property
    def host(self) -> str:
        """Return the leader's host name or address."""
        return self.leader.rpartition(":")[0]

    @property
    def port(self) -> int:
        """Return the port where the engine's processes meet."""
        return int(self.leader.rpartition(":")[2])

    @property
    def watch_port(self) -> int:
        """Return the port where the leader notices that a worker has gone, and each worker that the leader has."""
        return self.port + 1

    @model_validator(mode="after")
    def _is_one_of_the_nodes(self) -> Self:
        if self.rank >= self.nodes:
            message = f"rank {self.rank} is none of {self.nodes} nodes: they are counted from 0"
            raise ValueError(message)
        if not 0 < self.port < _LARGEST_PORT:
            message = f"leader {self.leader} has no such port, or none after it"
            raise ValueError(message)
        return self


class ListenerTls(BaseModel):
    """PEM files with which an engine listens at a ``host:port`` by TLS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Path
    """The engine's certificate, and those between it and its authority."""
    key: Path
    client_authorities: Path | None = None
    """Who must have signed the certificate that a client has to show; None asks for none."""


class EngineRuntime(BaseModel):
    """Everything that ``python -m engine --runtime FILE`` needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    core: Literal["llama_cpp", "vllm", "tensorrt_llm"] = "llama_cpp"
    model_path: Path | None = None
    """The GGUF file of the text model; ``llama_cpp`` needs it."""
    mmproj_path: Path | None = None
    """The GGUF file of the vision tower; None serves text only."""
    tokenizer_path: Path
    """``tokenizer.json`` of the model, for grammars."""
    endpoint: str
    """Where to listen, in gRPC's form: ``unix:/path`` or ``host:port``."""
    tls: ListenerTls | None = None
    """None sends everything as it is; a unix socket needs no more."""
    context_tokens: int = Field(gt=0)
    """Prompt plus completion of one sequence, in tokens."""
    max_sequences: int = Field(default=8, gt=0)
    max_queued: int = Field(default=256, ge=0)
    threads: int = Field(default=1, gt=0)
    gpu_layers: int = Field(default=0, ge=0)
    checkpoint_path: Path | None = None
    """Folder of a checkpoint in Hugging Face layout; ``vllm`` and ``tensorrt_llm`` need it."""
    draft_path: Path | None = None
    """Folder of a draft model (an MTP assistant) in Hugging Face layout; None drafts nothing."""
    bundle_path: Path | None = None
    """Folder of a prebuilt engine with its frozen arguments and caches; None starts from the checkpoint alone."""
    precision: str = "auto"
    """Number format of the weights, such as ``bf16``, ``fp8`` or ``nvfp4``; ``auto`` is what the checkpoint says."""
    tensor_parallel: int = Field(default=1, gt=0)
    """How many GPUs share every layer, on all machines together."""
    cluster: EngineCluster | None = None
    """Where this process stands among several machines; only ``vllm`` can use more than one."""
    gpu_memory_fraction: float = Field(default=0.9, gt=0, le=1)
    """Part of each GPU's memory that the engine may take."""
    batch_tokens: int = Field(default=0, ge=0)
    """Tokens that one step on a GPU computes at most, as the plan's memory was counted for; 0 leaves it to the core."""
    cuda_graphs: bool = True
    """Whether a core on a GPU may capture CUDA graphs, which cost memory."""
    adapters: AdapterRuntime | None = None
    """LoRA adapters to serve; only ``vllm`` can. None serves none."""

    @model_validator(mode="after")
    def _has_what_its_core_loads(self) -> Self:
        if self.tls is not None and self.endpoint.startswith("unix:"):
            message = "tls is given, and a unix socket has none: leave it out, or listen at host:port"
            raise ValueError(message)
        if self.core == "llama_cpp" and self.model_path is None:
            message = "model_path is missing: llama_cpp loads a GGUF file"
            raise ValueError(message)
        if self.core != "llama_cpp" and self.checkpoint_path is None:
            message = f"checkpoint_path is missing: {self.core} loads a checkpoint in Hugging Face layout"
            raise ValueError(message)
        if self.core != "vllm" and self.adapters is not None:
            message = f"adapters are given: {self.core} loads none, vllm does"
            raise ValueError(message)
        if self.adapters is not None and self.cluster is not None:
            message = "adapters are given: they are not served by an engine on several machines"
            raise ValueError(message)
        if self.cluster is not None and self.core != "vllm":
            message = f"{self.core} runs on one machine; only vllm can use several"
            raise ValueError(message)
        if self.cluster is not None and self.tensor_parallel % self.cluster.nodes:
            message = f"tensor_parallel {self.tensor_parallel} cannot be shared evenly by {self.cluster.nodes} nodes"
            raise ValueError(message)
        return self


class EngineTls(BaseModel):
    """PEM files for encrypted connections. Without ``authorities`` the public ones are trusted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    authorities: Path | None = None
    certificate: Path | None = None
    """Makes the API known to the engines; goes with ``key``."""
    key: Path | None = None
    server_name: str | None = None
    """The name that the engine's certificate must hold, where that is not the address's own."""


class EngineConnection(BaseModel):
    """How the API talks to engines; times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connect_timeout_s: float = Field(default=5.0, gt=0)
    keepalive_s: float = Field(default=10.0, gt=0)
    keepalive_timeout_s: float = Field(default=5.0, gt=0)
    tls: EngineTls | None = None
    """None sends everything as it is; a unix socket never needs more."""


class ApiRuntime(BaseModel):
    """Everything that ``python -m api --runtime FILE`` needs besides the user's own settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine_endpoints: tuple[str, ...]
    """gRPC addresses of the engine: ``unix:/path`` or ``host:port``."""
    connection: EngineConnection = EngineConnection()
    tokenizer_path: Path
    served_names: tuple[str, ...]
    """Names under which requests may address the model; the first is echoed in responses."""
    created: int
    """Unix seconds shown as the model's creation time."""
    api_keys: tuple[ApiKey, ...] = ()
    """What the launcher has kept of the keys that open the server; keys themselves are handed to no process."""
    listen_fd: int | None = None
    """A listening socket that this process inherits; None makes it open the port itself."""
    status_path: Path | None = None
    """JSON file in which the launcher tells its phase, shown in the body of ``/v1/health/ready`` until ready."""
    front_path: Path | None = None
    """A file that is there while the launcher, too, answers on the listening socket; until it has gone nobody is told
    ready."""
    profile_id: str = ""
    """The profile of the manifest that was chosen; empty for a model of the user's own."""
    model_urls: tuple[str, ...] = ()
    """Where the model's files came from; empty when they were on this machine all along."""
    adapters: bool = False
    """Whether the engines may serve adapters, so that a name that is not the model's is worth asking them for."""
