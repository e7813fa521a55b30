"""The API alone, over engines that somebody else starts: what of the settings it needs, checked before it starts.

Which model the engines serve nobody can see from here but for its tokenizer, which has to be the same.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.runtime import EngineConnection
from config.settings import Settings
from config.settings_transport import RemoteSettings
from config.variants import PROFILES
from launcher.cache.tokenizers import rebuilt_tokenizer
from launcher.commands.engines import LIBRARIES
from launcher.errors import ExitCode, LaunchError
from launcher.model import find_model


@dataclass(frozen=True, slots=True)
class RemotePlan:
    """What is served when only the API runs here.

    Attributes:
        names: names for requests, the first is the main one.
        tokenizer: the model's ``tokenizer.json``; not in the cache yet when it has to be rebuilt.
        endpoints: where the engines are.
        connection: how they are talked to.
    """

    names: tuple[str, ...]
    host: str
    port: int
    tokenizer: Path
    endpoints: tuple[str, ...]
    connection: EngineConnection

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Return it as names and values, for people."""
        return (
            ("model", ", ".join(self.names)),
            ("tokenizer", str(self.tokenizer)),
            ("engines", f"{', '.join(self.endpoints)}  (NIM_ENGINE_ENDPOINTS; none is started here)"),
            ("connection", self._security()),
            ("address", f"{self.host}:{self.port}"),
        )

    def _security(self) -> str:
        """Say in words what protects the connections."""
        if self.connection.tls is None:
            return "no TLS: what is asked and answered crosses the network as it is"
        authorities = self.connection.tls.authorities
        known = ", known to them by a certificate" if self.connection.tls.certificate else ""
        return f"TLS, {'public authorities' if authorities is None else str(authorities)}{known}"

    def record(self) -> Mapping[str, Any]:
        """Return it as JSON values."""
        return {
            "model": {"names": list(self.names), "tokenizer": str(self.tokenizer)},
            "server": {"host": self.host, "port": self.port},
            "engines": {
                "endpoints": list(self.endpoints),
                "why": "NIM_ENGINE_ENDPOINTS",
                **self.connection.model_dump(mode="json"),
            },
        }


def is_remote(settings: Settings) -> bool:
    """Tell whether the engines are somebody else's."""
    return bool(settings.remote.endpoints)


def plan_remote(settings: Settings) -> RemotePlan:
    """Return what is to be started.

    Raises:
        LaunchError: settings contradict each other, or the tokenizer or a TLS file is not there.
    """
    if settings.transport.kind != "embedded":
        message = "NIM_ENGINE_TRANSPORT=triton starts an engine here, and NIM_ENGINE_ENDPOINTS names engines elsewhere"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "set one of them")
    if settings.adapters.source is not None:
        message = "NIM_PEFT_SOURCE is for engines that are started here, and NIM_ENGINE_ENDPOINTS names others"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "set NIM_PEFT_SOURCE where the engines are started")
    connection = connection_to(settings.remote)
    tokenizer, names = _model(settings)
    server = settings.server
    return RemotePlan(names, server.host, server.port, tokenizer, settings.remote.endpoints, connection)


def connection_to(remote: RemoteSettings) -> EngineConnection:
    """Return how the engines are to be talked to.

    Raises:
        LaunchError: a file is not there, or only one of certificate and key is given.
    """
    if (remote.tls_cert is None) != (remote.tls_key is None):
        given, missing = ("CERT", "KEY") if remote.tls_key is None else ("KEY", "CERT")
        message = f"NIM_ENGINE_TLS_{given} is set and NIM_ENGINE_TLS_{missing} is not: they belong together"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, f"set NIM_ENGINE_TLS_{missing}")
    authorities, certificate, key = (
        None if path is None else path.expanduser().absolute()
        for path in (remote.tls_ca, remote.tls_cert, remote.tls_key)
    )
    _check_files(authorities, certificate, key)
    tls = {"authorities": authorities, "certificate": certificate, "key": key, "server_name": remote.tls_name}
    return EngineConnection.model_validate(
        {
            "connect_timeout_s": remote.connect_timeout_s,
            "keepalive_s": remote.keepalive_s,
            "keepalive_timeout_s": remote.keepalive_timeout_s,
            "tls": tls if remote.uses_tls else None,
        }
    )


def _check_files(authorities: Path | None, certificate: Path | None, key: Path | None) -> None:
    """Read the files once: gRPC would only say that no connection can be made."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    name, path = "NIM_ENGINE_TLS_CA", authorities
    try:
        if authorities is not None:
            context.load_verify_locations(authorities)
        if certificate is not None and key is not None:
            name, path = "NIM_ENGINE_TLS_CERT", certificate
            certificate.read_bytes()
            name, path = "NIM_ENGINE_TLS_KEY", key
            # An empty password, because one that is asked for at a terminal would stop the start for ever.
            context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        message = f"{name}={str(path)!r} cannot be used: {error.reason or error}"
        raise LaunchError(
            ExitCode.BAD_SETTINGS, message, "give PEM files without a password that belong together"
        ) from error
    except OSError as error:
        raise LaunchError(ExitCode.BAD_SETTINGS, f"{name}={str(path)!r} cannot be read: {error.strerror}") from error


def _model(settings: Settings) -> tuple[Path, tuple[str, ...]]:
    """Return the tokenizer and the names of the model that the engines serve."""
    model = settings.model
    folder = None if model.path is None else model.path.expanduser()
    beside = None if folder is None else folder / "tokenizer.json"
    alone = model.tokenizer_path or (beside if beside is not None and beside.is_file() else None)
    if alone is not None and model.served_names:
        path = alone.expanduser().absolute()
        if not path.is_file():
            raise LaunchError(ExitCode.CANNOT_START, f"the tokenizer file {path} does not exist")
        return path, model.served_names
    if model.path is None and settings.profile.name not in PROFILES:
        if alone is None:
            message = "NIM_ENGINE_ENDPOINTS is set, and nothing says which model the engines serve"
            remedy = "set NIM_TOKENIZER_PATH to its tokenizer.json, or NIM_MODEL_PATH to its folder"
            raise LaunchError(ExitCode.BAD_SETTINGS, message, remedy)
        message = "NIM_ENGINE_ENDPOINTS is set, and a tokenizer does not tell the model's name"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "set NIM_SERVED_MODEL_NAME")
    # Which engine loads it is settled elsewhere, and it need not be installed here.
    plain = model.model_copy(update={"engine": "auto"})
    found = find_model(plain, settings.profile.name, frozenset(LIBRARIES))
    return found.tokenizer or rebuilt_tokenizer(found.weights, settings.cache.path), found.names
