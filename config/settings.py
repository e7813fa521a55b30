"""The settings that a user may give, one frozen model per concern, each field with its full ``NIM_*`` name.

This module owns names, ranges and defaults. Reading the environment is ``config.environment``'s job; what follows from
the settings is decided by the launcher's plan. ``docs/configuration.md`` is generated from here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import Url

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
ImageTokens = Literal[70, 140, 280, 560, 1120]

_LEVELS_OF_1X = {"TRACE": "DEBUG", "DEFAULT": "INFO"}
_AUTOMATIC = "-1"
_HOST = re.compile(r"(?:\*|(?:\*\.)?[^\s:/@?#\\\[\]*]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?\Z")
_BY_DEFAULT = ("", "default", "auto")


def _level(value: object) -> object:
    if not isinstance(value, str):
        return value
    name = value.strip().upper()
    return _LEVELS_OF_1X.get(name, name)


def _names(value: object) -> object:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def _number(value: object) -> object:
    # Literal[int] takes no text, and the environment has nothing else.
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


def _ports(value: object) -> object:
    # A list of numbers from the environment; what is no number is left for the field to refuse.
    return tuple(int(text) if text.isdigit() else text for text in names) if (names := _texts(value)) else value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text.strip() for text in value.split(",") if text.strip()) if isinstance(value, str) else ()


def _host(value: str) -> str:
    if not _HOST.match(value) or not _is_host(value):
        raise ValueError("list hosts (example.com, *.example.com, host:port, [::1]:8080 or *), not URLs")
    return value


def _is_host(value: str) -> bool:
    # The parser that will read the URLs of requests must be able to read the list.
    try:
        return Url(f"http://{value.removeprefix('*').removeprefix('.') or 'any'}/").port != 0
    except ValidationError:
        return value.startswith("*:")


def _folder(value: Path) -> Path:
    if not value.is_absolute() or value == Path(value.anchor):
        raise ValueError("must be an absolute path of a folder that holds nothing but images, not /")
    return value


def _automatic(value: object) -> object:
    return None if value == -1 or (isinstance(value, str) and value.strip() in (_AUTOMATIC, "auto")) else value


def _profile(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in _BY_DEFAULT else value


class SettingsModel(BaseModel):
    """Base of all settings models: frozen, closed, addressable by field name and by variable name."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


def _variable(name: str, default: Any, **limits: Any) -> Any:
    return Field(default=default, alias=name, **limits)


class ServerSettings(SettingsModel):
    """The HTTP server."""

    host: str = _variable("NIM_SERVER_HOST", "0.0.0.0", min_length=1)  # noqa: S104 - a server for other machines
    """Address to listen on; ``127.0.0.1`` keeps other machines out."""
    port: int = _variable("NIM_SERVER_PORT", 8000, ge=1, le=65535)
    """TCP port to listen on."""
    max_request_bytes: int = _variable("NIM_MAX_REQUEST_BYTES", 64 * 1024 * 1024, ge=1024)
    """Largest request body; a larger one gets status 413."""
    lenient_requests: bool = _variable("NIM_LENIENT_REQUESTS", default=False)
    """Ignore unsupported request fields and name them in a response header, instead of answering 400."""
    enable_diagnostics: bool = _variable("NIM_ENABLE_DIAGNOSTICS", default=False)
    """Serve the routes that show the prompt of a request and the message that raw output becomes."""


class LogSettings(SettingsModel):
    """Logs of every process."""

    level: Annotated[LogLevel, BeforeValidator(_level)] = _variable("NIM_LOG_LEVEL", "WARNING")
    """Least severity that is logged. ``TRACE`` and ``DEFAULT`` of 1.x mean ``DEBUG`` and ``INFO``."""
    jsonl: bool = _variable("NIM_JSONL_LOGGING", default=False)
    """Log one JSON object per line."""


class ModelSettings(SettingsModel):
    """Which model is served, and under which names."""

    path: Path | None = _variable("NIM_MODEL_PATH", None)
    """A GGUF file, or a folder with one GGUF model and at most one ``mmproj*.gguf``. Unset serves the demo model."""
    profile: Annotated[Literal["demo-moe", "demo-dense"] | None, BeforeValidator(_profile)] = _variable(
        "NIM_MODEL_PROFILE", None
    )
    """Which demo model is served when no path is given: ``demo-moe`` (also for ``default``) or ``demo-dense``."""
    mmproj_path: Path | None = _variable("NIM_MMPROJ_PATH", None)
    """The GGUF file of the vision tower, when it does not lie beside the model."""
    tokenizer_path: Path | None = _variable("NIM_TOKENIZER_PATH", None)
    """``tokenizer.json``, when it does not lie beside the model. Without one it is rebuilt from the GGUF file."""
    served_names: Annotated[tuple[str, ...], BeforeValidator(_names)] = _variable("NIM_SERVED_MODEL_NAME", ())
    """Names that requests may use, separated by commas; the first is echoed. Unset: from the model."""
    max_model_len: Annotated[Annotated[int, Field(ge=64)] | None, BeforeValidator(_automatic)] = _variable(
        "NIM_MAX_MODEL_LEN", None
    )
    """Prompt plus completion of one request, in tokens. Unset, ``auto`` or ``-1``: what the model and memory allow."""
    cache_path: Path | None = _variable("NIM_CACHE_PATH", None)
    """Folder for files made from the model. Unset: ``/opt/nim/.cache`` if writable, else the user's cache folder."""


class MediaSettings(SettingsModel):
    """Pictures in requests."""

    max_images_per_prompt: int = _variable("NIM_MAX_IMAGES_PER_PROMPT", 5, ge=0, le=64)
    """Pictures that one request may hold; 0 takes text only."""
    image_tokens: Annotated[ImageTokens, BeforeValidator(_number)] = _variable("NIM_IMAGE_TOKENS", 280)
    """Token budget of one picture unless its ``detail`` says otherwise: 70, 140, 280, 560 or 1120."""
    max_image_bytes: int = _variable("NIM_MAX_IMAGE_BYTES", 20 * 1024 * 1024, ge=1024)
    """Largest picture file, in bytes: after base64, and after a server's compression."""
    allowed_local_path: Annotated[Path, AfterValidator(_folder)] | None = _variable(
        "NIM_ALLOWED_LOCAL_MEDIA_PATH", None
    )
    """Folder whose files requests may name as pictures, by path or ``file:`` URL. Unset: none."""
    image_cache_bytes: int = _variable("NIM_IMAGE_CACHE_BYTES", 64 * 1024 * 1024, ge=0)
    """Memory for decoded pictures that clients send again with every turn; 0 turns it off."""
    decoders: Annotated[int, Field(ge=1, le=64)] | None = _variable("NIM_IMAGE_DECODERS", None)
    """Processes that decode pictures, and so pictures that are decoded at once. Unset: one for each core, at most 4."""
    decoder_memory_bytes: int = _variable("NIM_IMAGE_DECODER_MEMORY_BYTES", 2 * 1024**3, ge=512 * 1024**2)
    """Address space of each of these processes; a picture that needs more is a 400."""
    decoder_timeout_s: int = _variable("NIM_IMAGE_DECODER_TIMEOUT_SECONDS", 20, ge=1, le=600)
    """Seconds that decoding one picture may take, in all and of CPU time; one that needs more is a 400."""


class FetchSettings(SettingsModel):
    """Pictures that requests name by http(s) URL."""

    allow_url_input: bool = _variable("NIM_ALLOW_URL_INPUT", default=True)
    """Fetch pictures by URL; with 0 a URL is a 400."""
    allowed_domains: Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(_names)] = _variable(
        "NIM_ALLOWED_MEDIA_DOMAINS", ()
    )
    """Hosts to fetch from, and only these, private addresses included: ``host``, ``host:port``, ``*.domain``, or ``*``
    for every public host besides. Unset: every public host."""
    allowed_ports: Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], BeforeValidator(_ports)] = _variable(
        "NIM_ALLOWED_MEDIA_PORTS", (80, 443)
    )
    """Ports to fetch from. A listed ``host:port`` needs no entry here."""
    timeout_s: float = _variable("NIM_MEDIA_FETCH_TIMEOUT_SECONDS", 10.0, gt=0, le=600)
    """Seconds for one picture from the look-up of the name to the last byte, redirects included."""
    connect_timeout_s: float = _variable("NIM_MEDIA_CONNECT_TIMEOUT_SECONDS", 3.0, gt=0, le=600)
    """Seconds of those until the connection must stand, TLS included."""
    max_parallel: int = _variable("NIM_MAX_MEDIA_FETCHES", 16, ge=1, le=1024)
    """Pictures that are fetched at the same time for all requests; one request fetches four."""


class EngineSettings(SettingsModel):
    """The inference engine."""

    max_num_seqs: Annotated[int, Field(ge=1, le=256)] | None = _variable("NIM_MAX_NUM_SEQS", None)
    """Requests that generate at the same time. Unset: 8, or fewer where memory is short."""
    max_queued: int = _variable("NIM_MAX_QUEUED", 256, ge=0, le=100_000)
    """Requests that may wait for a free place; one more gets status 429."""
    threads: Annotated[int, Field(ge=1, le=512)] | None = _variable("NIM_ENGINE_THREADS", None)
    """CPU threads that compute. Unset: one less than there are cores."""


class LaunchSettings(SettingsModel):
    """How the launcher starts, watches and stops the processes."""

    strict_config: bool = _variable("NIM_STRICT_CONFIG", default=False)
    """Refuse to start when a ``NIM_*`` variable is unknown or not supported."""
    relax_memory: bool = _variable("NIM_RELAX_MEM_CONSTRAINTS", default=False)
    """Start even when the estimate says that memory does not suffice."""
    start_timeout_s: float = _variable("NIM_START_TIMEOUT_SECONDS", 900.0, gt=0, le=86_400)
    """Seconds that a model may take to load."""
    max_restarts: int = _variable("NIM_MAX_ENGINE_RESTARTS", 5, ge=0, le=1000)
    """Crashes of the engine within ten minutes after which the launcher gives up."""
    shutdown_grace_s: float = _variable("NIM_SHUTDOWN_GRACE_SECONDS", 30.0, ge=0, le=3600)
    """Seconds that running requests get to finish after SIGTERM."""


class Settings(SettingsModel):
    """Everything together, loaded once per process by ``config.environment.load_settings``."""

    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    model: ModelSettings = ModelSettings()
    media: MediaSettings = MediaSettings()
    fetch: FetchSettings = FetchSettings()
    engine: EngineSettings = EngineSettings()
    launch: LaunchSettings = LaunchSettings()


def sections() -> dict[str, type[SettingsModel]]:
    """Return the settings models by their name in ``Settings``."""
    found: dict[str, type[SettingsModel]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsModel):
            found[name] = field.annotation
    return found


def variables() -> dict[str, tuple[str, str]]:
    """Return every variable's place: its name -> (section, field)."""
    return {
        str(field.alias): (section, name)
        for section, model in sections().items()
        for name, field in model.model_fields.items()
    }
