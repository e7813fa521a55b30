"""What a stream of ids turns out to be: pieces of thought, text and tool calls, in order.

Joined, the pieces of one kind are the same however the ids were split.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ReasoningDelta:
    """More of the thought."""

    text: str


@dataclass(slots=True)
class ContentDelta:
    """More of the answer's text."""

    text: str


@dataclass(slots=True)
class CallStart:
    """A tool call begins: ``index`` counts calls from 0. Sent once per call."""

    index: int
    call_id: str
    name: str


@dataclass(slots=True)
class CallDelta:
    """More of a call's arguments as JSON text: all pieces of a finished call joined are one JSON object."""

    index: int
    arguments: str


@dataclass(slots=True)
class CallEnd:
    """A call is finished. It is missing for a call that was cut."""

    index: int


Event = ReasoningDelta | ContentDelta | CallStart | CallDelta | CallEnd
