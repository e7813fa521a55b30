"""The web server around the application: uvicorn with this project's limits, TLS, and no signal handling of its own."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from contextlib import nullcontext
from functools import partial
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from api.http.access_options import AccessOptions
from api.http.connection import Connection, ConnectionConfig

_STARTUP_FAILURE: Final = 3
"""What uvicorn ends with when the application does not start."""
_OTHER_FILES: Final = 512
"""Descriptors for everything that is no client's connection."""

_log = logging.getLogger("api")


class ApiServer(uvicorn.Server):
    """Serves connections of one listening socket, with a deadline for the handshake of TLS."""

    config: ConnectionConfig

    def __init__(self, app: ASGIApp, access: AccessOptions) -> None:
        super().__init__(
            ConnectionConfig(
                app,
                access.connection,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._access = access

    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override] # the base returns a generator's context
        """Leave signals to whoever runs the server: a stop first lets running answers finish."""
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and accept connections on sockets that are open already.

        Uvicorn's own would wait a minute for a handshake, and has no way to say otherwise.
        """
        _raise_descriptor_limit(self._access.connection.max_connections)
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(_STARTUP_FAILURE)
        self.servers = [await self._accept(listener) for listener in sockets or ()]
        self.started = True

    async def _accept(self, listener: socket.socket) -> asyncio.Server:
        tls = self._access.tls
        connect = partial(Connection, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        deadline_s = None if tls is None else self._access.connection.header_timeout_s
        return await asyncio.get_running_loop().create_server(
            connect,
            sock=listener,
            ssl=tls,
            backlog=self.config.backlog,
            ssl_handshake_timeout=deadline_s,
        )


def _raise_descriptor_limit(connections: int) -> None:
    """Let this process open as many files as it may have connections: shells allow 1024, the system mostly far more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    reached = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (reached, hard))
    if reached < wanted:
        _log.warning("only %d files may be open, too few for NIM_MAX_CONNECTIONS=%d", reached, connections)
