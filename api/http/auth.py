"""Who may do what: API keys and client certificates. Raw ASGI, nothing per token.

What is not open is refused, whatever its route, method or spelling: the decision is made on the bytes of the path as
they came, before anything reads them. Only exact matches are open.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import ApiError
from api.http.connection import CERTIFIED
from api.http.errors import error_response
from api.http.refusals import CertificateNeededError, KeyBusyError, UnauthorizedError
from config.api_keys import ApiKey, KeyTable, read_hashes, stamp_of
from config.errors import ConfigError

HEALTH_PATHS: Final = frozenset({b"/v1/health/live", b"/v1/health/ready"})
METRICS_PATHS: Final = frozenset({b"/metrics", b"/v1/metrics"})
KEY_NAME: Final = "api_key_name"
"""In a request's ``state``: what the log calls its key."""
LOOK_EVERY_S: Final = 1.0
_MAX_PRESENTED: Final = 4

_log = logging.getLogger("api.access")


class KeyRing:
    """All keys that open the server: those of the settings, and those of a file that may change."""

    def __init__(self, keys: Sequence[ApiKey], path: Path | None = None) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be used.
        """
        self._keys = tuple(keys)
        self._path = path
        self._looked = time.monotonic()
        self._stamp: object = None if path is None else stamp_of(path)
        self._table = KeyTable((*self._keys, *(() if path is None else read_hashes(path))))

    def name_of(self, presented: Iterable[bytes]) -> str | None:
        """Return the name of the first key that opens, None when none does."""
        self._look()
        for key in presented:
            name = self._table.name_of(key)
            if name is not None:
                return name
        return None

    def _look(self) -> None:
        """Read the file again if it has changed; one that cannot be used leaves everything as it is."""
        now = time.monotonic()
        if self._path is None or now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            read = read_hashes(self._path, may_be_empty=True)
        except ConfigError as error:
            _log.error("the changed file of keys cannot be used, the former keys stay: %s", error)
            return
        self._table = KeyTable((*self._keys, *read))
        _log.warning("the file of keys has changed: it has %d keys now", len(read))


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """What a request must have.

    Attributes:
        keys: None asks for none.
        needs_certificate: of the client, from an authority that the server's TLS knows.
        open_paths: raw paths that need nothing of it.
        max_requests_per_key: running at once; None is no limit.
    """

    keys: KeyRing | None = None
    needs_certificate: bool = False
    open_paths: frozenset[bytes] = HEALTH_PATHS
    max_requests_per_key: int | None = None

    @property
    def asks_for_anything(self) -> bool:
        """Whether there is anything to check."""
        return self.keys is not None or self.needs_certificate


class AccessControl:
    """ASGI middleware that lets requests pass or answers for the application."""

    def __init__(self, app: ASGIApp, policy: AccessPolicy) -> None:
        self._app = app
        self._policy = policy
        self._running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan" or scope.get("raw_path") in self._policy.open_paths:
            await self._app(scope, receive, send)
            return
        try:
            name = self._admit(scope)
            with self._counted(name):
                await self._app(scope, receive, send)
        except (UnauthorizedError, CertificateNeededError, KeyBusyError) as error:
            await self._refuse(error, scope, receive, send)

    def _admit(self, scope: Scope) -> str | None:
        """Return the name of the request's key, None where none is needed.

        Raises:
            ApiError: the request may not pass.
        """
        state = scope.setdefault("state", {})
        if self._policy.needs_certificate and not state.get(CERTIFIED):
            raise CertificateNeededError
        if self._policy.keys is None:
            return None
        presented = _presented(scope)
        name = self._policy.keys.name_of(presented)
        if name is None:
            raise UnauthorizedError(is_missing=not presented)
        state[KEY_NAME] = name
        return name

    @contextmanager
    def _counted(self, name: str | None) -> Iterator[None]:
        """Count a request of a key while it lasts.

        Raises:
            KeyBusyError: the key has as many as it may.
        """
        limit = self._policy.max_requests_per_key
        if name is None or limit is None:
            yield
            return
        if self._running[name] >= limit:
            raise KeyBusyError(limit)
        self._running[name] += 1
        try:
            yield
        finally:
            self._running[name] -= 1

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        await error_response(error)(scope, receive, send)


def _presented(scope: Scope) -> list[bytes]:
    """Return the keys that a request shows, in the header of OpenAI's clients or in that of Anthropic's."""
    found: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                found.append(key.strip())
        elif name == b"x-api-key":
            found.append(value.strip())
    return [key for key in found if key][:_MAX_PRESENTED]
