"""Sends what sequences have drawn, off the event loop and the step thread: Triton takes 0.1 to 0.2 ms per response.

What a sequence draws while its last response is on its way, or is less than a short interval old, shares the next one.
The interval follows what sending costs, so it is nothing to one stream and a few steps' time to many. A first delta and
a last one go at once.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol

from engine.core import EngineDelta, join_deltas
from engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

SENDING_SHARE = 0.5
"""How much of the time may go into sending before tokens begin to share responses."""
MAX_DELAY_S = 0.05
"""No id waits longer for company than this."""
COST_AT_START_S = 0.000_2
MAX_COST_S = 0.002
"""A response that took longer was held up by something else, which says nothing of the next."""
COST_WEIGHT = 0.05
CANCELLED = EngineError("the request was cancelled")
POLL_INTERVAL_S = 0.025
"""So often every sequence is asked whether its client has left. Asking costs about as much as a response."""


class Reply(Protocol):
    """A request's way back. Every method blocks; after ``fail``, ``cancelled`` or a last delta none is called."""

    def send(self, delta: EngineDelta) -> None:
        """Send a delta."""
        ...

    def fail(self, error: EngineError) -> None:
        """End the request with an error."""
        ...

    def cancelled(self) -> None:
        """End a request that its client has cancelled."""
        ...

    def is_cancelled(self) -> bool:
        """Tell whether the client has left."""
        ...


class Outgoing:
    """One sequence on its way out; the sender's lock guards everything but ``reply``."""

    __slots__ = (
        "cancel",
        "end",
        "is_cancel_told",
        "is_over",
        "is_scheduled",
        "is_sending",
        "lock",
        "news",
        "not_before",
    )

    def __init__(self, cancel: Callable[[], object]) -> None:
        """Prepare. ``cancel`` is called, in another thread, when the client has left."""
        self.cancel = cancel
        self.news: list[EngineDelta] = []
        self.end: EngineError | None = None
        """Why it ends without a last delta."""
        self.not_before = 0.0
        self.is_scheduled = False
        self.is_sending = False
        self.is_over = False
        self.is_cancel_told = False
        self.lock = threading.Lock()
        """Held while its reply is used: a reply must not be touched once the request has ended."""


class Sender:
    """Sends for all sequences from a few threads, and asks from another one whether their clients are still there."""

    def __init__(self, threads: int = 1) -> None:
        """Start the threads."""
        self.responses = 0
        """Responses sent so far."""
        self._replies: dict[Outgoing, Reply] = {}
        self._due: list[tuple[float, int, Outgoing]] = []
        self._count = itertools.count()
        self._cost_s = COST_AT_START_S
        self._share = SENDING_SHARE * threads
        self._is_closed = False
        self._wake = threading.Condition()
        self._closing = threading.Event()
        self._has_clients = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_all, name=f"reply-{i}", daemon=True) for i in range(threads)
        ]
        self._threads.append(threading.Thread(target=self._watch_clients, name="reply-cancels", daemon=True))
        for thread in self._threads:
            thread.start()

    def open(self, reply: Reply, cancel: Callable[[], object]) -> Outgoing:
        """Begin a sequence."""
        outgoing = Outgoing(cancel)
        with self._wake:
            self._replies[outgoing] = reply
            self._has_clients.set()
        return outgoing

    def delta(self, outgoing: Outgoing, delta: EngineDelta) -> None:
        """Send a delta soon; returns at once."""
        with self._wake:
            if outgoing in self._replies:
                outgoing.news.append(delta)
                self._schedule(outgoing, is_urgent=delta.finish_reason is not None)

    def end(self, outgoing: Outgoing, error: EngineError | None) -> None:
        """End a sequence that failed, or that its client has cancelled (None); returns at once.

        Nothing happens where its last delta was given already.
        """
        with self._wake:
            if outgoing in self._replies:
                outgoing.end = CANCELLED if error is None else error
                self._schedule(outgoing, is_urgent=True)

    def close(self) -> None:
        """Send what is waiting and stop the threads."""
        with self._wake:
            self._is_closed = True
            self._wake.notify_all()
        self._closing.set()
        self._has_clients.set()
        for thread in self._threads:
            thread.join()

    def _schedule(self, outgoing: Outgoing, *, is_urgent: bool) -> None:
        """Put a sequence into the order of sending; the lock is held."""
        if outgoing.is_sending or (outgoing.is_scheduled and not is_urgent):
            return
        outgoing.is_scheduled = True
        heapq.heappush(self._due, (0.0 if is_urgent else outgoing.not_before, next(self._count), outgoing))
        self._wake.notify()

    def _send_all(self) -> None:
        while (outgoing := self._next()) is not None:
            with self._wake:
                news, outgoing.news = outgoing.news, []
                end = outgoing.end
                reply = self._replies[outgoing]
            started = time.monotonic()
            is_over = self._send(outgoing, reply, join_deltas(news) if news else None, end)
            self._note_sent(outgoing, started, is_over=is_over)

    def _next(self) -> Outgoing | None:
        """Wait for a sequence whose time has come and mark it; None when there is nothing left to do."""
        with self._wake:
            while True:
                wait_s = None
                if self._due:
                    due, _, outgoing = self._due[0]
                    wait_s = due - time.monotonic()
                    if wait_s <= 0 or self._is_closed:
                        heapq.heappop(self._due)
                        # An urgent entry overtakes an ordinary one, which stays behind with nothing to send.
                        if outgoing.is_scheduled and not outgoing.is_over:
                            outgoing.is_scheduled = False
                            outgoing.is_sending = True
                            return outgoing
                        continue
                elif self._is_closed:
                    return None
                self._wake.wait(wait_s)

    def _send(self, outgoing: Outgoing, reply: Reply, delta: EngineDelta | None, end: EngineError | None) -> bool:
        """Send; return whether that was the last."""
        has_finished = delta is not None and delta.finish_reason is not None
        is_last = has_finished or end is not None
        with outgoing.lock:
            outgoing.is_over = is_last
            try:
                if delta is not None:
                    reply.send(delta)
                if has_finished or end is None:
                    return is_last
                if end is CANCELLED:
                    reply.cancelled()
                else:
                    reply.fail(end)
            except Exception:
                # The thread serves every other sequence too. The backend raises its own type, unknown here.
                logger.exception("a response could not be sent")
        return is_last

    def _note_sent(self, outgoing: Outgoing, started: float, *, is_over: bool) -> None:
        now = time.monotonic()
        with self._wake:
            self.responses += 1
            self._cost_s += COST_WEIGHT * (min(now - started, MAX_COST_S) - self._cost_s)
            outgoing.is_sending = False
            if is_over:
                self._replies.pop(outgoing, None)
                return
            interval_s = len(self._replies) * self._cost_s / self._share
            outgoing.not_before = now + min(MAX_DELAY_S, interval_s)
            if outgoing.end is not None or outgoing.news:
                is_last = outgoing.end is not None or outgoing.news[-1].finish_reason is not None
                self._schedule(outgoing, is_urgent=is_last)

    def _watch_clients(self) -> None:
        while not self._closing.wait(POLL_INTERVAL_S):
            with self._wake:
                running = list(self._replies.items())
                if not running and not self._is_closed:
                    self._has_clients.clear()
            self._has_clients.wait()
            for outgoing, reply in running:
                self._look_after(outgoing, reply)

    @staticmethod
    def _look_after(outgoing: Outgoing, reply: Reply) -> None:
        if outgoing.is_cancel_told:
            return
        with outgoing.lock:
            try:
                outgoing.is_cancel_told = not outgoing.is_over and reply.is_cancelled()
            except Exception:
                # As above: the other sequences go on.
                logger.exception("a client could not be asked for")
        if outgoing.is_cancel_told:
            outgoing.cancel()
