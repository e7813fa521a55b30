"""What guards the port, settled before it is opened: certificates, and what is kept of keys.

The API gets the digests of keys and never a key; it reads the certificates by itself, as the front at the port does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import SecretStr

from config.api_keys import SHORT_KEY, ApiKey, keys_of, read_hashes, split_keys
from config.errors import ConfigError
from config.server_tls import ServerTls
from config.settings import Settings


@dataclass(frozen=True, slots=True)
class Access:
    """TLS and keys of one server.

    Attributes:
        tls: None serves plain HTTP.
        keys: those of the settings; those of the file that may change are the API's business.
        needs_key: whether requests need one.
    """

    tls: ServerTls | None = None
    keys: tuple[ApiKey, ...] = ()
    needs_key: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether there is anybody who may not use the server."""
        return self.needs_key or (self.tls is not None and self.tls.asks_for_certificates)

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """Read and check the settings and the files that they name.

        Raises:
            ConfigError: a certificate, its key, or the file of keys cannot be used.
        """
        unused = [f"{line} (NIM_STRICT_CONFIG is set)" for line in settings.tls.unused()]
        if unused and settings.launch.strict_config:
            raise ConfigError(unused, jsonl=settings.log.jsonl)
        try:
            if settings.keys.hashes_path is not None:
                read_hashes(settings.keys.hashes_path)
            keys = keys_of(settings.keys.api_keys, settings.keys.api_key)
            return cls(ServerTls.load(settings.tls), keys, bool(keys) or settings.keys.hashes_path is not None)
        except ConfigError as error:
            raise ConfigError(error.problems, jsonl=settings.log.jsonl) from error


def access_warnings(settings: Settings) -> Iterator[str]:
    """Yield what is weak or has no effect; no key is shown."""
    yield from settings.tls.unused()
    for name, secret in (("NIM_API_KEYS", settings.keys.api_keys), ("NIM_API_KEY", settings.keys.api_key)):
        shortest = min((len(key) for key in _keys(secret)), default=SHORT_KEY)
        if shortest < SHORT_KEY:
            yield f"{name} has a key of {shortest} characters, which can be guessed; make one: openssl rand -hex 32"


def _keys(secret: SecretStr | None) -> tuple[str, ...]:
    return () if secret is None else split_keys(secret.get_secret_value())
