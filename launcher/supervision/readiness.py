"""Asks the API's own health routes whether it is alive and whether the model is ready, as any client would."""

from __future__ import annotations

import asyncio
import http.client
import ssl
from dataclasses import dataclass
from typing import Final

LIVE: Final = "/v1/health/live"
READY: Final = "/v1/health/ready"
REQUEST_TIMEOUT_S: Final = 2.0
FIRST_PAUSE_S: Final = 0.03
LONGEST_PAUSE_S: Final = 0.2
PAUSE_GROWTH: Final = 1.3
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


def reachable_host(host: str) -> str:
    """Return the address at which to find a server on this machine: one that listens everywhere is on the loopback."""
    return _ANY_ADDRESS.get(host, host)


@dataclass(frozen=True, slots=True)
class HealthProbe:
    """The health routes of one server.

    Attributes:
        encrypted: it speaks TLS. Its certificate is not checked: nothing secret is sent, and it is our own process.
    """

    host: str
    port: int
    encrypted: bool = False

    @property
    def url(self) -> str:
        """Return the server's address for people and programs of this machine."""
        host = reachable_host(self.host)
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.encrypted else 'http'}://{shown}:{self.port}"

    async def is_ok(self, path: str, timeout_s: float = REQUEST_TIMEOUT_S) -> bool:
        """Tell whether ``path`` answers 200 now."""
        return await asyncio.to_thread(self._ask, path, timeout_s)

    async def wait(self, path: str) -> None:
        """Return as soon as ``path`` answers 200; the caller sets the deadline."""
        pause = FIRST_PAUSE_S
        while not await self.is_ok(path):
            await asyncio.sleep(pause)
            pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_S)

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if not self.encrypted:
            return http.client.HTTPConnection(reachable_host(self.host), self.port, timeout=timeout_s)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(reachable_host(self.host), self.port, timeout=timeout_s, context=context)

    def _ask(self, path: str, timeout_s: float) -> bool:
        connection = self._connection(timeout_s)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
