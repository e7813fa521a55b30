"""``python -m api.media.decoder_process``: one decoder; takes pictures one by one until its socket closes.

``api.media.decoder`` starts it. Whatever a hostile file makes of the libraries in here is confined to this process: it
has no network, no files but those that travel with a job, little memory, and little time for each picture.
"""

from __future__ import annotations

import argparse
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO, FileIO
from typing import IO, Final

import PIL.Image
from PIL import MpoImagePlugin, PpmImagePlugin, TiffImagePlugin

from api.media.base64_text import decode_base64
from api.media.decode import decode_picture
from api.media.decoder_wire import MAX_JOB_BYTES, MAX_RESULT_BYTES, READY, Job, Outcome, Reply
from api.media.errors import DecodeError, SourceError
from api.media.header import Bytes
from api.media.sandbox import confine
from api.media.size import BUDGETS, Budget

MAX_FILES: Final = 32
NICENESS: Final = 5
"""Decoders give way to the API process, whose event loop must never wait for a core."""
_GRACE_S: Final = 2
"""The decoder ends itself so much later than it would be killed, should nobody be left to do that."""

_RESULT_FORMAT: Final = "PPM"
_PRELOADED: Final = (MpoImagePlugin, PpmImagePlugin, TiffImagePlugin)
"""Pillow imports these when it meets a picture that needs them, which is too late here: nothing can be opened then."""
_KINDS: Final = (("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "I;16"), ("GIF", "P"), ("WEBP", "RGBA"))
"""Formats and modes that are rehearsed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one decoder may use."""

    memory_bytes: int
    timeout_s: int
    max_image_bytes: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the other end of the socket is closed."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("socket", "memory-bytes", "timeout-s", "max-image-bytes"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args(arguments)
    limits = Limits(options.memory_bytes, options.timeout_s, options.max_image_bytes)
    # Ctrl-C reaches the whole group; the API process ends its decoders itself, after its last answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=options.socket) as channel:
        _rehearse()
        _limit(limits)
        channel.send(READY)
        while _serve_one(channel, limits):
            pass
    return 0


def _rehearse() -> None:
    """Decode a picture of each kind, so that everything that is loaded late has been loaded."""
    for name, mode in _KINDS:
        file = BytesIO()
        PIL.Image.new(mode, (64, 64)).save(file, name)
        decode_picture(file.getvalue(), file, Budget(BUDGETS[0])).save(BytesIO(), _RESULT_FORMAT)


def _limit(limits: Limits) -> None:
    """Give up what decoding does not need. From here on no file can be opened, so nothing new can be imported."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_RESULT_BYTES, MAX_RESULT_BYTES))
    confine()


def _serve_one(channel: socket.socket, limits: Limits) -> bool:
    """Take one job and answer it; False when there will be no more."""
    message, files, _, _ = socket.recv_fds(channel, MAX_JOB_BYTES, 2)
    if not message:
        return False
    try:
        job = Job.decode(message, is_inline=len(files) == 1)
        _start_clock(limits.timeout_s)
        reply = _answer(job, files, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        for number in files:
            os.close(number)
    channel.send(reply.encode())
    return True


def _start_clock(timeout_s: int) -> None:
    """Let the kernel end this process when one picture takes too long, by its own time or by the clock."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1 + timeout_s, hard))
    signal.setitimer(signal.ITIMER_REAL, timeout_s + _GRACE_S)


def _answer(job: Job, files: Sequence[int], limits: Limits) -> Reply:
    """Decode a job's picture and write its pixels."""
    try:
        data, file = _open(job, files, limits.max_image_bytes)
        with file:
            picture = decode_picture(data, file, job.budget)
        with FileIO(files[0], "wb", closefd=False) as result:
            picture.save(result, _RESULT_FORMAT)
    except (DecodeError, SourceError) as error:
        return Reply(Outcome.REFUSED, reason=error.message)
    except MemoryError:
        return Reply(Outcome.REFUSED, reason="the image is too large to be decoded")
    except Exception:  # noqa: BLE001 - the process boundary: whatever else a library raises is the picture's fault
        return Reply(Outcome.REFUSED, reason="the image cannot be decoded")
    return Reply(Outcome.DONE, picture.width, picture.height)


def _open(job: Job, files: Sequence[int], max_bytes: int) -> tuple[Bytes, IO[bytes]]:
    """Return the picture's bytes, for looking at them and for reading.

    Raises:
        DecodeError: there are too many.
        SourceError: they are not the base64 that they should be.
    """
    if job.data is None:
        size = os.fstat(files[1]).st_size
        mapped = mmap.mmap(files[1], size, prot=mmap.PROT_READ)
        if not job.is_base64:
            _check_length(size, max_bytes)
            # Pillow reads a file in small steps; nobody needs the whole of it in memory a second time.
            return mapped, FileIO(files[1], "rb", closefd=False)
        data: bytes | memoryview = memoryview(mapped)
    else:
        data = job.data
    content = decode_base64(data) if job.is_base64 else bytes(data)
    _check_length(len(content), max_bytes)
    return content, BytesIO(content)


def _check_length(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise DecodeError(f"it is larger than {max_bytes} bytes")


if __name__ == "__main__":
    sys.exit(main())
