"""The settings that a user may give, one frozen model per concern, each field with its full variable name.

This module owns names, ranges and defaults, together with its neighbours for pictures, profiles and the cache. Reading
the sources is ``config.environment``'s job; what follows from the settings is decided by the launcher's plan.
``docs/configuration.md`` is generated from here.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from config.settings_access import CorsSettings, KeySettings, LimitSettings, TlsSettings
from config.settings_adapters import AdapterSettings
from config.settings_base import SettingsModel, read_automatic, read_names, variable
from config.settings_build import BuildSettings
from config.settings_cache import CacheSettings, NetworkSettings, StoreSettings
from config.settings_media import FetchSettings, MediaSettings
from config.settings_profile import MemorySettings, ProfileSettings
from config.settings_telemetry import ApiProcessSettings, TelemetrySettings
from config.settings_transport import RemoteSettings, TransportSettings

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

_LEVELS_OF_1X = {"TRACE": "DEBUG", "DEFAULT": "INFO"}
_URI = re.compile(r"(?:hf|ngc|s3|https|http|modelscope)://\S+\Z")


def _level(value: object) -> object:
    if not isinstance(value, str):
        return value
    name = value.strip().upper()
    return _LEVELS_OF_1X.get(name, name)


def _uri(value: str) -> str:
    if not _URI.match(value):
        raise ValueError("write hf://organisation/model, ngc://organisation/team/model:version, s3:// or https://")
    if value.startswith("modelscope://"):
        raise ValueError("ModelScope is no source here; use hf://, ngc://, s3://, https://, or a local path")
    return value


class ServerSettings(SettingsModel):
    """The HTTP server."""

    host: str = variable("NIM_SERVER_HOST", "0.0.0.0", min_length=1)  # noqa: S104 - a server for other machines
    """Address to listen on; ``127.0.0.1`` keeps other machines out."""
    port: int = variable("NIM_SERVER_PORT", 8000, ge=1, le=65535)
    """TCP port to listen on."""
    max_request_bytes: int = variable("NIM_MAX_REQUEST_BYTES", 64 * 1024 * 1024, ge=1024)
    """Largest request body; a larger one gets status 413."""
    lenient_requests: bool = variable("NIM_LENIENT_REQUESTS", default=False)
    """Ignore unsupported request fields and name them in a response header, instead of answering 400."""
    enable_diagnostics: bool = variable("NIM_ENABLE_DIAGNOSTICS", default=False)
    """Serve the routes that show the prompt of a request and the message that raw output becomes."""


class LogSettings(SettingsModel):
    """Logs of every process."""

    level: Annotated[LogLevel, BeforeValidator(_level)] = variable("NIM_LOG_LEVEL", "WARNING")
    """Least severity that is logged. ``TRACE`` and ``DEFAULT`` of 1.x mean ``DEBUG`` and ``INFO``."""
    jsonl: bool = variable("NIM_JSONL_LOGGING", default=False)
    """Log one JSON object per line."""
    disable_banner: bool = variable("NIM_DISABLE_BANNER", default=False)
    """Leave out the name, version and licence notices at the start."""


class ModelSettings(SettingsModel):
    """Which model is served, and under which names."""

    path: Path | None = variable("NIM_MODEL_PATH", None)
    """A GGUF file, a folder with one GGUF model and at most one ``mmproj*.gguf``, or a folder with a checkpoint in
    Hugging Face layout, for vLLM and TensorRT-LLM. Unset serves the demo model."""
    engine: Literal["auto", "llama_cpp", "vllm", "tensorrt_llm"] = variable("NIM_ENGINE", "auto")
    """Which engine serves: ``llama_cpp``, ``vllm`` or ``tensorrt_llm``. ``auto`` goes by the files of
    ``NIM_MODEL_PATH`` (a GGUF file is for ``llama_cpp``); among profiles the best one decides."""
    uri: Annotated[str, AfterValidator(_uri)] | None = variable("NIM_MODEL_URI", None)
    """A model to download and serve: ``hf://``, ``ngc://``, ``s3://`` or ``https://``. ``NIM_MODEL_PATH`` takes such an
    address, too."""
    mmproj_path: Path | None = variable("NIM_MMPROJ_PATH", None)
    """The GGUF file of the vision tower, when it does not lie beside the model."""
    tokenizer_path: Path | None = variable("NIM_TOKENIZER_PATH", None)
    """``tokenizer.json``, when it does not lie beside the model. Without one it is rebuilt from the GGUF file."""
    served_names: Annotated[tuple[str, ...], BeforeValidator(read_names)] = variable("NIM_SERVED_MODEL_NAME", ())
    """Names that requests may use, separated by commas; the first is echoed. Unset: from the model."""
    max_model_len: Annotated[Annotated[int, Field(ge=64)] | None, BeforeValidator(read_automatic)] = variable(
        "NIM_MAX_MODEL_LEN", None
    )
    """Prompt plus completion of one request, in tokens. Unset, ``auto`` or ``-1``: what the model and memory allow."""


class EngineSettings(SettingsModel):
    """The inference engine."""

    max_num_seqs: Annotated[int, Field(ge=1, le=256)] | None = variable("NIM_MAX_NUM_SEQS", None)
    """Requests that generate at the same time. Unset: 8, or fewer where memory is short."""
    max_queued: int = variable("NIM_MAX_QUEUED", 256, ge=0, le=100_000)
    """Requests that may wait for a free place; one more gets status 429."""
    threads: Annotated[int, Field(ge=1, le=512)] | None = variable("NIM_ENGINE_THREADS", None)
    """CPU threads that compute. Unset: one less than there are cores."""


class LaunchSettings(SettingsModel):
    """How the launcher starts, watches and stops the processes."""

    strict_config: bool = variable("NIM_STRICT_CONFIG", default=False)
    """Refuse to start when a ``NIM_*`` variable is unknown or not supported."""
    relax_memory: bool = variable("NIM_RELAX_MEM_CONSTRAINTS", default=False)
    """Start even when the estimate says that memory does not suffice."""
    start_timeout_s: float = variable("NIM_START_TIMEOUT_SECONDS", 900.0, gt=0, le=86_400)
    """Seconds that a model may take to load."""
    max_restarts: int = variable("NIM_MAX_ENGINE_RESTARTS", 5, ge=0, le=1000)
    """Crashes of the engine within ten minutes after which the launcher gives up."""
    shutdown_grace_s: float = variable("NIM_SHUTDOWN_GRACE_SECONDS", 30.0, ge=0, le=3600)
    """Seconds that running requests get to finish after SIGTERM."""


class Settings(SettingsModel):
    """Everything together, loaded once per process by ``config.environment.load_settings``."""

    server: ServerSettings = ServerSettings()
    keys: KeySettings = KeySettings()
    tls: TlsSettings = TlsSettings()
    cors: CorsSettings = CorsSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    model: ModelSettings = ModelSettings()
    profile: ProfileSettings = ProfileSettings()
    memory: MemorySettings = MemorySettings()
    cache: CacheSettings = CacheSettings()
    network: NetworkSettings = NetworkSettings()
    store: StoreSettings = StoreSettings()
    media: MediaSettings = MediaSettings()
    fetch: FetchSettings = FetchSettings()
    engine: EngineSettings = EngineSettings()
    adapters: AdapterSettings = AdapterSettings()
    build: BuildSettings = BuildSettings()
    transport: TransportSettings = TransportSettings()
    remote: RemoteSettings = RemoteSettings()
    launch: LaunchSettings = LaunchSettings()
    processes: ApiProcessSettings = ApiProcessSettings()
    telemetry: TelemetrySettings = TelemetrySettings()


@cache
def sections() -> dict[str, type[SettingsModel]]:
    """Return the settings models by their name in ``Settings``."""
    found: dict[str, type[SettingsModel]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsModel):
            found[name] = field.annotation
    return found


@cache
def variables() -> dict[str, tuple[str, str]]:
    """Return every variable's place: its name -> (section, field)."""
    return {
        str(field.alias): (section, name)
        for section, model in sections().items()
        for name, field in model.model_fields.items()
    }


@cache
def secrets() -> frozenset[str]:
    """Return the variables whose values are never shown, nor taken from a command line, nor handed to children."""
    return frozenset(
        str(field.alias)
        for model in sections().values()
        for field in model.model_fields.values()
        if _holds_secret(field.annotation)
    )


def _holds_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(_holds_secret(argument) for argument in get_args(annotation))
