"""One client's connection: uvicorn's protocol with deadlines and limits, and errors in OpenAI's shape.

It acts on the start and the end of requests only; while an answer is streamed nothing here runs. What it refuses has no
request yet, so it answers and logs by itself.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import uuid
from asyncio.events import TimerHandle
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import httptools
import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.errors import ApiError
from api.http.limits import ConnectionLimits
from api.http.refusals import (
    HeadersTooLargeError,
    MalformedRequestError,
    SlowHeadersError,
    TooManyConnectionsError,
    UriTooLongError,
)

CERTIFIED: Final = "client_is_certified"
"""In a request's ``state``: whether the client has shown a certificate of the authorities."""
MAX_URL_BYTES: Final = 8192
LINGER_S: Final = 2.0
"""For so long what a refused client still sends is read and dropped: closing at once could lose the answer."""
_SPARE_CONNECTIONS: Final = 64
"""So many connections over the limit are told so; further ones are closed."""

_log = logging.getLogger("api.access")


class ConnectionConfig(uvicorn.Config):
    """Uvicorn's configuration with the limits that its protocol lacks."""

    def __init__(self, app: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(app, http=Connection, timeout_keep_alive=1, **options)
        # Uvicorn declares whole seconds, and takes any.
        self.timeout_keep_alive = limits.keep_alive_s  # type: ignore[assignment]
        self.connection_limits = limits


class Connection(HttpToolsProtocol):
    """Refuses what is too large, too slow or no HTTP."""

    config: ConnectionConfig

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = self.config.connection_limits
        self._timers: dict[Callable[[], None], TimerHandle] = {}
        self._in_head = True
        self._head_bytes = 0
        """Bytes that have come since the last request ended, until the next one's head is there."""
        self._url_bytes = self._parsed_bytes = 0
        self._fault: ApiError | None = None
        """Why the parser was stopped."""
        self._is_refusing = False
        self._refusal: ApiError | None = None
        """What is still to be said when the answers before it have ended."""
        self._unanswered: list[RequestResponseCycle] = []
        """Requests that were begun, the oldest first; uvicorn itself remembers the latest only."""
        self._is_repeating = False
        """Whether the parser is given a head that it has seen, only without the wish to upgrade."""
        self._is_certified = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin to wait for the first request."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self._is_certified = isinstance(tls, ssl.SSLObject) and bool(tls.getpeercert())
        over = len(self.connections) - self._limits.max_connections
        if over > _SPARE_CONNECTIONS:
            transport.abort()
        elif over > 0:
            self._refuse(TooManyConnectionsError())
        else:
            self._set_timer(self._head_is_late, self._limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for cycle in self._unanswered:
            _abandon(cycle)
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        if self._is_refusing:
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_is_late not in self._timers:
                self._set_timer(self._head_is_late, self._limits.header_timeout_s)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._fault or MalformedRequestError())
        if self._in_head and self._head_bytes > self._limits.max_header_bytes:
            self._refuse(HeadersTooLargeError(f"more than {self._limits.max_header_bytes} bytes"))

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._is_repeating:
            return
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._url_bytes = self._parsed_bytes = 0
        self.scope["state"][CERTIFIED] = self._is_certified

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's target."""
        if self._is_repeating:
            return
        self._url_bytes += len(url)
        if self._url_bytes > MAX_URL_BYTES:
            self._stop(UriTooLongError(MAX_URL_BYTES))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if self._is_repeating:
            return
        self._parsed_bytes += len(name) + len(value) + 4
        if len(self.headers) >= self._limits.max_headers:
            self._stop(HeadersTooLargeError(f"more than {self._limits.max_headers} of them"))
        if self._parsed_bytes + self._url_bytes > self._limits.max_header_bytes:
            self._stop(HeadersTooLargeError(f"more than {self._limits.max_header_bytes} bytes"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        if self._is_repeating:
            self._is_repeating = False
            return
        self._clear_timer(self._head_is_late)
        super().on_headers_complete()
        self._in_head = False
        self._unanswered.append(self.cycle)

    def on_message_complete(self) -> None:
        """Note the end of a request; the next bytes belong to another."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0
        if self._timers.pop(self._close, None) is not None:
            # The answer was complete before the request: only from now on the connection is idle.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Wait for the next request, or shortly for the rest of this one, which nobody wants any more."""
        super().on_response_complete()
        self._unanswered = [cycle for cycle in self._unanswered if not cycle.response_complete]
        if self._refusal is not None and not self._unanswered:
            self._tell(self._refusal)
            return
        is_unread = not self._in_head and self.cycle.response_complete
        if is_unread and not self.transport.is_closing():
            self._set_timer(self._close, LINGER_S)

    def shutdown(self) -> None:
        """Close when the server stops; an idle connection does not wait for the client's farewell under TLS."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and not self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        self._close()

    def pause_writing(self) -> None:
        """Give a client that does not read some time."""
        super().pause_writing()
        self._set_timer(self._abort, self._limits.send_timeout_s)

    def resume_writing(self) -> None:
        """Take note that it reads again."""
        self._clear_timer(self._abort)
        super().resume_writing()

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read the body of a request that would rather speak another protocol, as Java's client asks each time.

        A server need not upgrade, but the parser takes what follows the head for the other protocol.
        """
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] not in (b"upgrade", b"connection")]
        head = b"%b / HTTP/1.1\r\n%b\r\n" % (self.parser.get_method(), b"".join(lines))
        self.parser = httptools.HttpRequestParser(self)
        self._is_repeating = True
        self.data_received(head + rest)

    def _stop(self, fault: ApiError) -> None:
        """Stop the parser from within one of its calls."""
        self._fault = fault
        raise fault

    def _head_is_late(self) -> None:
        self._timers.pop(self._head_is_late, None)
        if self.cycle is not None and not self.cycle.response_complete:
            # The next request has begun while this one is being answered: it may wait.
            self._set_timer(self._head_is_late, self._limits.header_timeout_s)
        elif self._head_bytes:
            self._refuse(SlowHeadersError(self._limits.header_timeout_s))
        else:
            self._close()

    def _refuse(self, error: ApiError) -> None:
        """Read no more, and answer without the application once earlier requests have their answers; then close."""
        if self._is_refusing or self.transport.is_closing():
            return
        self._is_refusing = True
        self._clear_timer(self._head_is_late)
        self._clear_timer(self._close)
        if not self._in_head:
            # The fault is in the body of a request that the application has.
            if self.cycle.response_started:
                self._close()
                return
            _abandon(self.cycle)
            self._unanswered.remove(self.cycle)
            self.pipeline = deque(entry for entry in self.pipeline if entry[0] is not self.cycle)
        if self._unanswered:
            self._refusal = error
        else:
            self._tell(error)

    def _tell(self, error: ApiError) -> None:
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        request_id = uuid.uuid4().hex
        _log.info("refused before it was a request: %d %s id=%s", error.status, error.code, request_id)
        self.transport.write(self._answer(error, request_id))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._set_timer(self._close, LINGER_S)

    def _answer(self, error: ApiError, request_id: str) -> bytes:
        body = orjson.dumps(error.body())
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
            *((name.encode(), value.encode()) for name, value in error.headers.items()),
        ]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        return STATUS_LINE.get(error.status, STATUS_LINE[HTTPStatus.BAD_REQUEST]) + lines + b"\r\n" + body

    def _close(self) -> None:
        """Close when all is sent; a client that takes nothing does not hold the connection for ever."""
        self._clear_timer(self._close)
        if not self.transport.is_closing():
            self.transport.close()
        self._set_timer(self._abort, self._limits.send_timeout_s)

    def _abort(self) -> None:
        self._timers.pop(self._abort, None)
        self.transport.abort()

    def _set_timer(self, work: Callable[[], None], delay_s: float) -> None:
        self._clear_timer(work)
        self._timers[work] = self.loop.call_later(delay_s, work)

    def _clear_timer(self, work: Callable[[], None]) -> None:
        timer = self._timers.pop(work, None)
        if timer is not None:
            timer.cancel()


def _abandon(cycle: RequestResponseCycle) -> None:
    """Tell the application that nobody waits for its answer."""
    cycle.disconnected = True
    cycle.message_event.set()
