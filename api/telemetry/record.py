"""The record of one request: plain facts that the layers note on their way and that are looked at once it has ended.

Noting is setting an attribute; nothing is done per token. Metrics and traces are made from finished records.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class Picture:
    """One picture of a request.

    Attributes:
        source: ``inline``, ``url`` or ``file``.
        fetch_s: seconds that reading it took, for a URL with its connection; None when it was not read.
        decode_s: seconds of decoding, waiting for a decoder included; None when it was not decoded.
        outcome: ``used``, ``cached`` (the decoded picture was still there) or ``refused``.
    """

    source: str
    started: float
    fetch_s: float | None = None
    decode_s: float | None = None
    outcome: str = "refused"


@dataclass(slots=True, eq=False)
class RequestRecord:
    """Facts about one request; moments are of ``time.perf_counter``, None until they have come.

    Attributes:
        started_ns: Unix time of ``started``, to which all moments can be related.
        status: of the response, 499 when the client left before it.
        error_code: of the error that ended the request, as its body names it.
        prepared_from: the body is read and understood, the preparation of the prompt begins.
        rendered: the prompt is written; the time from ``pictures_done`` is that of writing it.
        submitted: the sequences go to the engine.
        first_token: every choice has begun.
        ended: the conversation was closed.
        closed: the answer has ended, or the connection.
        finish_reasons: of the choices that have ended by themselves.
        choices: how many were asked for; 0 for a request that generates nothing.
        generated: returns the tokens generated so far, while that can be asked; None before and after.
        counted_tokens: of them, those that the metrics have.
    """

    started: float = field(default_factory=time.perf_counter)
    started_ns: int = field(default_factory=time.time_ns)
    method: str = ""
    route: str = ""
    status: int = 0
    error_code: str = ""
    prepared_from: float | None = None
    pictures_done: float | None = None
    rendered: float | None = None
    submitted: float | None = None
    first_token: float | None = None
    ended: float | None = None
    closed: float = 0.0
    pictures: list[Picture] = field(default_factory=list)
    choices: int = 0
    generated: Callable[[], int] | None = None
    counted_tokens: int = 0
    finish_reasons: tuple[str, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int | None = None
    request_id: str = ""
    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None

    @property
    def outcome(self) -> str:
        """Return ``success``, ``error``, or ``cancelled`` for a client that left before the end."""
        if self.error_code:
            return "error"
        return "success" if self.choices and len(self.finish_reasons) == self.choices else "cancelled"


_current: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


def begin_record() -> RequestRecord:
    """Return a new record, the current one from now on, in tasks that are started from here, too."""
    record = RequestRecord()
    _current.set(record)
    return record


def current_record() -> RequestRecord:
    """Return the record of the request that is being served; outside of one, a record that nobody reads."""
    return _current.get() or RequestRecord()
