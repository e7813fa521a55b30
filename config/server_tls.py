"""The server's side of TLS: one context for all at the port, checked at the start, renewed when its files change.

The launcher answers on the port before the API does, so both need it. Which settings there are is the business of
``config.settings_access``; who may do what with which certificate is the API's.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.api_keys import stamp_of
from config.errors import ConfigError
from config.settings_access import TlsSettings

LOOK_EVERY_S: Final = 1.0
"""The files are looked at when somebody connects, at most so often."""
_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
"""Numbers of X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""
_ROUNDS: Final = 8
"""A handshake takes three; an endless loop would hide a fault."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Files:
    """Where the certificates lie.

    Attributes:
        authorities: of clients' certificates; None asks clients for none.
    """

    certificate: Path
    key: Path
    authorities: Path | None

    @classmethod
    def of(cls, settings: TlsSettings) -> _Files:
        """Return the files that the settings name.

        Raises:
            ConfigError: one that is needed is not named.
        """
        needed: dict[str, Path | None] = {
            "NIM_SSL_CERTS_PATH": settings.certs_path,
            "NIM_SSL_KEY_PATH": settings.key_path,
        }
        if settings.mode == "mtls":
            needed["NIM_SSL_CA_CERTS_PATH"] = settings.ca_certs_path
        missing = [name for name, path in needed.items() if path is None]
        if missing or settings.certs_path is None or settings.key_path is None:
            raise ConfigError([f"NIM_SSL_MODE={settings.mode} needs {' and '.join(missing)}"])
        return cls(settings.certs_path, settings.key_path, settings.ca_certs_path if settings.mode == "mtls" else None)

    def stamp(self) -> tuple[object, ...]:
        """Return what changes when a file does, also when a link in its path leads elsewhere."""
        return tuple(stamp_of(path) for path in (self.certificate, self.key, self.authorities) if path is not None)

    def context(self) -> ssl.SSLContext:
        """Load everything.

        Raises:
            ConfigError: a file cannot be used; the variable and the file are named.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _prepare(context)
        _check_readable("NIM_SSL_CERTS_PATH", self.certificate, b"CERTIFICATE-----")
        _check_readable("NIM_SSL_KEY_PATH", self.key, b"PRIVATE KEY-----")
        try:
            context.load_cert_chain(self.certificate, self.key, password=_refuse_password)
        except _EncryptedKeyError as error:
            raise ConfigError([f"NIM_SSL_KEY_PATH={self.key}: the key is encrypted; give it unencrypted"]) from error
        except (ssl.SSLError, OSError) as error:
            raise ConfigError([self._why_unusable(error)]) from error
        if self.authorities is not None:
            _load_authorities(context, self.authorities)
        return context

    def _why_unusable(self, error: Exception) -> str:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            return f"NIM_SSL_KEY_PATH={self.key}: this is not the key of the certificate {self.certificate}"
        return f"NIM_SSL_CERTS_PATH={self.certificate}, NIM_SSL_KEY_PATH={self.key}: no usable certificate and key"


class ServerTls(ssl.SSLContext):
    """A context for any server; each new connection gets what the files hold now, those that run keep what they have.

    Event loops ask a context for one thing, ``wrap_bio``; here it comes from an inner context that is replaced as a
    whole. Files that do not fit together, as in the middle of a renewal, change nothing until they do.
    """

    _files: _Files
    _current: ssl.SSLContext
    _stamp: object
    _looked: float

    @classmethod
    def load(cls, settings: TlsSettings) -> ServerTls | None:
        """Return the context that the settings ask for; None when connections are not encrypted.

        Raises:
            ConfigError: a file is missing, does not fit, or the certificate is not valid now.
        """
        if settings.mode == "disabled":
            return None
        files = _Files.of(settings)
        tls = cls(ssl.PROTOCOL_TLS_SERVER)
        _prepare(tls)
        tls._files = files
        tls._stamp = files.stamp()
        tls._current = files.context()
        _check_dates(tls._current, files)
        tls._looked = time.monotonic()
        return tls

    @property
    def asks_for_certificates(self) -> bool:
        """Whether clients have to show a certificate."""
        return self._files.authorities is not None

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin the server's side of one connection."""
        self._look()
        return self._current.wrap_bio(*arguments, **options)

    def _look(self) -> None:
        """Load the files again if they have changed."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return
        # Files that are at fault are not tried again before they change once more.
        self._stamp = stamp
        try:
            self._current = self._files.context()
        except ConfigError as error:
            _log.warning("the changed certificates cannot be used, the former ones stay: %s", error)
            return
        _log.warning("the certificates have changed: new connections use %s", self._files.certificate)


def own_client_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return a client's context for this very server, on whatever address: it trusts the server's own certificate only.

    Raises:
        ConfigError: the certificate cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(settings.certs_path)
    except (OSError, TypeError) as error:
        raise ConfigError([f"NIM_SSL_CERTS_PATH={settings.certs_path}: holds no usable certificate"]) from error
    return context


class _EncryptedKeyError(Exception):
    """A password would be needed."""


def _refuse_password() -> str:
    """Stand in for OpenSSL's question on the terminal, which would hang a server."""
    raise _EncryptedKeyError


def _prepare(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])


def _check_readable(variable: str, path: Path, mark: bytes) -> None:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{variable}={path}: cannot be read: {error.strerror}"]) from error
    if mark not in data:
        raise ConfigError([f"{variable}={path}: is no PEM file with {mark.decode().rstrip('-')}"])


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    """Accept the certificates of these authorities.

    A client without any gets through the handshake and is refused by the API: kubelets and other probes have none.
    """
    name = "NIM_SSL_CA_CERTS_PATH"
    _check_readable(name, path, b"CERTIFICATE-----")
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise ConfigError([f"{name}={path}: holds no usable certificate"]) from error
    ends = [ssl.cert_time_to_seconds(str(entry["notAfter"])) for entry in context.get_ca_certs() if "notAfter" in entry]
    if not ends:
        raise ConfigError([f"{name}={path}: holds no certificate of an authority"])
    if max(ends) < time.time():
        raise ConfigError([f"{name}={path}: the certificate of the authority has expired"])
    context.verify_mode = ssl.CERT_OPTIONAL


def _check_dates(server: ssl.SSLContext, files: _Files) -> None:
    """Shake hands with ourselves, as a client that trusts exactly this certificate.

    Raises:
        ConfigError: the certificate has expired, or is not valid yet.
    """
    client = own_client_context(TlsSettings(certs_path=files.certificate))
    try:
        shake_hands(server, client)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
            name, path = "NIM_SSL_CERTS_PATH", files.certificate
            raise ConfigError([f"{name}={path}: {error.verify_message}; renew it, or set the clock"]) from error
        _log.warning("clients may not accept the certificate %s: %s", files.certificate, error.verify_message)
    except ssl.SSLError as error:
        _log.warning("a handshake with the certificate %s failed: %s", files.certificate, error.reason)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """Connect two contexts in memory, and return what the client has seen of the server's certificate.

    Raises:
        ssl.SSLError: they do not come together.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done: set[ssl.SSLObject] = set()
    for _ in range(_ROUNDS):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
                done.add(side)
        if len(done) == len(sides):
            return dict(sides[0].getpeercert() or {})
    return {}
