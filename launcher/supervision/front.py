"""Holds the server's port from the first second on and answers health probes until the API process does.

The launcher opens the listening socket itself and hands it to the API process, so that the port is never closed while a
model is downloaded, while the API starts, or when it has to be started again: connections wait in the socket's queue.
Until then ``live`` is 200 here, and everything else 503 with what the launcher is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from launcher.supervision.readiness import LIVE, READY, HealthProbe

_MAX_HEAD: Final = 16_384
_HEAD_TIMEOUT_S: Final = 5.0
_MAX_CONNECTIONS: Final = 256
_LINGER_S: Final = 1.0
_RETRY_AFTER_S: Final = 2
_PAUSE_S: Final = 0.1
_PROBE_TIMEOUT_S: Final = 0.3
"""For so long a client may have to wait while the launcher looks whether the API answers yet."""

_CALLER_ID: Final = re.compile(rb"\r\nx-request-id:[ \t]*([A-Za-z0-9_.:\-]{1,128})[ \t]*\r\n", re.IGNORECASE)
"""An id that the API, too, takes over from its caller."""

Status = Callable[[], Mapping[str, Any]]


class Front:
    """Answers on a listening socket in place of the API; an event loop must run.

    It accepts by itself: an ``asyncio.Server`` that is closed while a connection arrives loses that connection.
    """

    def __init__(
        self, listener: socket.socket, status: Status, tls: ssl.SSLContext | None = None, marker: Path | None = None
    ) -> None:
        """Prepare; nothing is answered yet.

        Args:
            listener: the listening socket, shared with the API.
            status: what ``ready`` tells.
            tls: what connections are encrypted with.
            marker: a file that is there for as long as connections may be answered here. Until it has gone the API
                calls itself not ready: whoever is told ready must not meet the front with the next request.
        """
        self._listener = listener
        self._status = status
        self._tls = tls
        self._marker = marker
        self._answers: set[asyncio.Task[None]] = set()

    def resume(self) -> None:
        """Answer connections, those that wait in the queue first."""
        if self._marker is not None:
            self._marker.touch()
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def pause(self) -> None:
        """Accept no more connections; the socket stays open and they wait."""
        asyncio.get_running_loop().remove_reader(self._listener)

    async def hand_over(self, probe: HealthProbe) -> None:
        """Return as soon as the API answers on the socket; the caller sets the deadline.

        Both accept from the same queue, so the launcher steps aside for a moment each time that it asks.
        """
        while True:
            self.pause()
            if await probe.is_ok(LIVE, _PROBE_TIMEOUT_S):
                self._go()
                return
            self.resume()
            await asyncio.sleep(_PAUSE_S)

    async def finish(self) -> None:
        """Accept no more and let the answers that are under way end."""
        self.pause()
        self._go()
        if self._answers:
            await asyncio.wait(self._answers, timeout=_LINGER_S)

    def _go(self) -> None:
        if self._marker is not None:
            self._marker.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # No descriptor is free, or the client has gone: without a pause the loop would spin.
            self.pause()
            asyncio.get_running_loop().call_later(_PAUSE_S, self.resume)
            return
        connection.settimeout(0)
        if len(self._answers) >= _MAX_CONNECTIONS:
            connection.close()
            return
        answer = self._answer if self._tls is None else self._answer_encrypted
        task = asyncio.get_running_loop().create_task(answer(connection))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        # Whoever speaks something else than HTTP, or too slowly, gets no answer.
        with connection, contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_HEAD_TIMEOUT_S):
                head = await _read_head(loop, connection)
                if head is None:
                    return
                await loop.sock_sendall(connection, respond(head, self._status()))
            async with asyncio.timeout(_LINGER_S):
                # Closing with unread bytes in the queue would reset the connection before the answer is read.
                connection.shutdown(socket.SHUT_WR)
                while await loop.sock_recv(connection, _MAX_HEAD):
                    pass

    async def _answer_encrypted(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(_MAX_HEAD)
        protocol = asyncio.StreamReaderProtocol(reader)
        with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_HEAD_TIMEOUT_S):
                # From here on the socket is the transport's, which closes it also when there is no handshake.
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol, connection, ssl=self._tls, ssl_shutdown_timeout=_LINGER_S
                )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                async with asyncio.timeout(_HEAD_TIMEOUT_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(respond(head, self._status()))
                    await writer.drain()
                async with asyncio.timeout(_LINGER_S):
                    # TLS cannot close one direction only: the client, which knows the length, hangs up.
                    while await reader.read(_MAX_HEAD):
                        pass
            finally:
                writer.close()


async def _read_head(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes | None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = await loop.sock_recv(connection, _MAX_HEAD)
        head += data
        if not data or len(head) > _MAX_HEAD:
            return None
    return head


def respond(head: bytes, status: Mapping[str, Any]) -> bytes:
    """Return the whole HTTP response to a request's head."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    given = _CALLER_ID.search(head)
    request_id = given[1].decode() if given else uuid.uuid4().hex
    path = words[1].split(b"?")[0].decode("latin-1") if len(words) > 1 else ""
    if path == LIVE:
        living = {"object": "health.response", "message": "live", "status": "live"}
        return _response("200 OK", living, words[0], request_id)
    phase = str(status.get("phase", "starting"))
    message = f"The service is not ready: {phase}."
    error = {"message": message, "type": "service_unavailable", "param": None, "code": "not_ready"}
    body: dict[str, Any] = {"error": error}
    if path == READY:
        body |= dict(status) | {"object": "health.response", "message": message, "status": "not_ready", "phase": phase}
    return _response("503 Service Unavailable", body, words[0], request_id)


def _response(status: str, body: Mapping[str, Any], method: bytes, request_id: str) -> bytes:
    content = json.dumps(body).encode()
    wait = f"retry-after: {_RETRY_AFTER_S}\r\nretry-after-ms: {1000 * _RETRY_AFTER_S}\r\n"
    retry = "" if status.startswith("200") else wait
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n"
        f"x-request-id: {request_id}\r\n{retry}connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else content)
