"""An engine's own side of TLS: its files, checked before anything is loaded, and how this machine itself gets in.

The API's side is ``engine.triton.connection``'s; Triton reads the files itself, ``engine.triton.server_process`` names
them to it.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

import grpc

from config.server_tls import shake_hands
from engine.errors import EngineLoadError
from engine.triton.connection import ConnectionOptions, TlsFiles

if TYPE_CHECKING:
    from config.runtime import EngineRuntime, ListenerTls

logger = logging.getLogger(__name__)

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what an address says, not one that is opened
_NO_PASSWORD = ""
"""A password that is asked for at a terminal would stop the start for ever."""


def check_files(tls: ListenerTls) -> None:
    """Read everything once: gRPC would only say that no connection can be made.

    Raises:
        EngineLoadError: a file is missing, damaged, or not valid now; its field and its path are named.
    """
    _name_in(tls)
    if tls.client_authorities is None:
        return
    server, client = _contexts(tls)
    server.verify_mode = ssl.CERT_REQUIRED
    client.load_cert_chain(tls.certificate, tls.key, password=_NO_PASSWORD)
    try:
        shake_hands(server, client)
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", None) or error.reason
        words = "shown by a client, the certificate %s is refused by the engine itself, so probes here will be: %s"
        logger.warning(words, tls.certificate, why)


def server_credentials(tls: ListenerTls) -> grpc.ServerCredentials:
    """Return what our server listens with; each new connection gets what the files hold then.

    Raises:
        EngineLoadError: a file cannot be used.
    """
    check_files(tls)

    def current() -> grpc.ServerCertificateConfiguration | None:
        try:
            pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
            accepted = None if tls.client_authorities is None else tls.client_authorities.read_bytes()
            return grpc.ssl_server_certificate_configuration([pair], accepted)
        except OSError:
            # In the middle of a renewal; gRPC stays with what it had.
            return None

    return grpc.dynamic_ssl_server_credentials(current(), current, tls.client_authorities is not None)


def own_address(endpoint: str) -> str:
    """Return where this machine reaches a server that listens at ``endpoint``."""
    host, separator, port = endpoint.rpartition(":")
    return f"{_ANY_HOST.get(host, host)}{separator}{port}"


def own_options(runtime: EngineRuntime) -> ConnectionOptions:
    """Return how this machine itself talks to the engine: it trusts the engine's certificate, and shows the same one.

    Where clients must show a certificate, the engine takes that one if it is from an authority that clients may have.

    Raises:
        EngineLoadError: a file cannot be used.
    """
    tls = runtime.tls
    if tls is None:
        return ConnectionOptions()
    return ConnectionOptions(tls=TlsFiles(tls.certificate, tls.certificate, tls.key, _name_in(tls)))


def _name_in(tls: ListenerTls) -> str:
    """Return a name that the certificate holds, having shaken hands with ourselves.

    Raises:
        EngineLoadError: a file cannot be used.
    """
    server, client = _contexts(tls)
    try:
        certificate = shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        message = f"tls.certificate={str(tls.certificate)!r} cannot be used: {error.verify_message}"
        raise EngineLoadError(message) from error
    except ssl.SSLError as error:
        message = f"tls.certificate={str(tls.certificate)!r} cannot be used: {error.reason or error}"
        raise EngineLoadError(message) from error
    names = [str(entry[1]) for entry in certificate.get("subjectAltName", ()) if entry[0] in ("DNS", "IP Address")]
    common = [str(value) for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    if not names + common:
        message = f"tls.certificate={str(tls.certificate)!r} names no host"
        raise EngineLoadError(message)
    # Any name below a wildcard will do.
    return (names + common)[0].replace("*", "engine", 1)


def _contexts(tls: ListenerTls) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the engine's side and that of a client who trusts its certificate.

    Raises:
        EngineLoadError: a file cannot be used.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    name, path = "tls.certificate", tls.certificate
    try:
        path.read_bytes()
        name, path = "tls.key", tls.key
        path.read_bytes()
        server.load_cert_chain(tls.certificate, tls.key, password=_NO_PASSWORD)
        client.load_verify_locations(tls.certificate)
        if tls.client_authorities is not None:
            name, path = "tls.client_authorities", tls.client_authorities
            server.load_verify_locations(path)
    except ssl.SSLError as error:
        message = f"{name}={str(path)!r} cannot be used: {_why(name, error)}"
        raise EngineLoadError(message) from error
    except OSError as error:
        message = f"{name}={str(path)!r} cannot be read: {error.strerror}"
        raise EngineLoadError(message) from error
    return server, client


def _why(name: str, error: ssl.SSLError) -> str:
    if name == "tls.key":
        return f"{error.reason or error}; certificate and key are PEM files without a password that belong together"
    return f"{error.reason or error}; it holds certificates, as PEM"
