"""What the API process and a decoder process say to each other, over a socket that keeps message boundaries.

A job travels with open files: one to write pixels to, and for larger pictures one to read from. Pixels are written as
a binary PPM file, whose header has a known length, because Pillow writes that form straight from its memory to a file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from api.media.size import BUDGETS, TOKEN_SIDE, Budget

INLINE_BYTES: Final = 64 * 1024
"""Pictures up to this size travel inside the message: cheaper than a file, and safely below the socket's buffer."""
MAX_REPLY_BYTES: Final = 2048
READY: Final = b"ready"
"""A decoder's first message, when it can take jobs."""

_JOB: Final = struct.Struct("<IBB")
_REPLY: Final = struct.Struct("<BII")
MAX_JOB_BYTES: Final = _JOB.size + INLINE_BYTES


def ppm_header(width: int, height: int) -> bytes:
    """Return what stands before the pixels of a binary PPM file with 8 bits per colour."""
    return b"P6\n%d %d\n255\n" % (width, height)


MAX_PIXEL_BYTES: Final = BUDGETS[-1] * TOKEN_SIDE * TOKEN_SIDE * 3
"""The largest picture that the model takes."""
MAX_RESULT_BYTES: Final = MAX_PIXEL_BYTES + len(ppm_header(99_999, 99_999))


class Outcome(IntEnum):
    """How a job ended."""

    DONE = 0
    REFUSED = 1
    """The picture is at fault; the reply says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to decode. ``data`` is None when the picture is in the second file that travels with the job."""

    budget: Budget
    is_base64: bool
    data: bytes | None = None

    def encode(self) -> list[bytes]:
        """Return the message's parts."""
        head = _JOB.pack(self.budget.tokens, self.budget.lossless, self.is_base64)
        return [head] if self.data is None else [head, self.data]

    @classmethod
    def decode(cls, message: bytes, *, is_inline: bool) -> Self:
        """Return the job of a message."""
        tokens, lossless, is_base64 = _JOB.unpack_from(message)
        data = message[_JOB.size :] if is_inline else None
        return cls(Budget(tokens, bool(lossless)), bool(is_base64), data)


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a job: the size of the picture in the file, or the reason why there is none."""

    outcome: Outcome
    width: int = 0
    height: int = 0
    reason: str = ""

    def encode(self) -> bytes:
        """Return the message."""
        head = _REPLY.pack(self.outcome, self.width, self.height)
        return (head + self.reason.encode())[:MAX_REPLY_BYTES]

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Return the reply of a message.

        Raises:
            ValueError: it is none.
        """
        try:
            outcome, width, height = _REPLY.unpack_from(message)
            return cls(Outcome(outcome), width, height, message[_REPLY.size :].decode())
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError("a decoder's reply cannot be read") from error
