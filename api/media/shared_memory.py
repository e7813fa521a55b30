"""Files in memory that the API process shares with a decoder: one for what a decoder reads, one for each result.

Pixels come back through a file that belongs to one result alone and cannot be cut short by the other side, so that
nothing has to be copied out of it. ``api.media.decoder`` sends the files along with a job.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from api.media.background_close import close_in_background, prepare
from api.media.decoder_wire import MAX_RESULT_BYTES, ppm_header
from api.media.encoded import EncodedPicture
from api.media.errors import DecodeError
from engine.core import Image

KEPT_BYTES: Final = 8 * 1024 * 1024
"""Memory that a decoder's file keeps from one picture to the next; to get new memory costs more than to fill it."""
_SMALL_BYTES: Final = 512 * 1024
"""What is written in the event loop itself, in less time than handing it to a thread takes."""
_STEP_BYTES: Final = 256 * 1024
_GUARD: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class PictureFile:
    """The file from which one decoder reads its pictures, one after the other."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._writing: asyncio.Future[None] | None = None

    async def fill(self, picture: EncodedPicture) -> int:
        """Put a picture into the file, instead of the one before it, and return the file's descriptor.

        Raises:
            DecodeError: the picture is text that cannot be base64.
            OSError: there is no memory, or the decoder keeps the file from being written.
        """
        if self._file is None:
            self._file = os.memfd_create("picture", os.MFD_CLOEXEC)
        os.ftruncate(self._file, picture.size)
        if picture.size <= _SMALL_BYTES:
            _write(self._file, picture)
        else:
            self._writing = asyncio.get_running_loop().run_in_executor(None, _write, self._file, picture)
            await asyncio.shield(self._writing)
        return self._file

    def shrink(self) -> None:
        """Give back memory beyond what is kept."""
        if self._file is not None and os.fstat(self._file).st_size > KEPT_BYTES:
            os.ftruncate(self._file, KEPT_BYTES)

    def close(self) -> None:
        """Give everything back."""
        file, self._file = self._file, None
        if file is None:
            return
        if self._writing is None or self._writing.done():
            os.close(file)
        else:
            # Whoever gave up waiting did not stop the thread, and the number may soon be another file's.
            self._writing.add_done_callback(lambda _: os.close(file))


class _Pixels(mmap.mmap):
    """A result's memory."""

    def __del__(self) -> None:
        close_in_background(self)


@contextmanager
def open_result() -> Iterator[int]:
    """Open shared memory for the largest picture; what is not written takes no memory."""
    file = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(file, MAX_RESULT_BYTES)
        # Cut short by the other side, it would be a crash of this process where it is read.
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _GUARD)
        yield file
    finally:
        os.close(file)


def map_image(result: int, width: int, height: int) -> Image:
    """Return the picture in shared memory, which lives as long as someone holds the picture."""
    prepare()
    start = len(ppm_header(width, height))
    end = start + width * height * 3
    pixels = memoryview(_Pixels(result, end, prot=mmap.PROT_READ))[start:]
    return Image(rgb=pixels, width=width, height=height)


def as_bytes(data: bytes | memoryview | str) -> bytes:
    """Return a part of a picture, which may be text, as bytes.

    Raises:
        DecodeError: the text cannot be base64.
    """
    if not isinstance(data, str):
        return bytes(data)
    try:
        return data.encode("ascii")
    except UnicodeEncodeError as error:
        raise DecodeError("it is not valid base64; send the file's bytes in base64, whole") from error


def _write(file: int, picture: EncodedPicture) -> None:
    """Write a picture in steps: what a step copies stays in the processor's cache, and other threads get their turn."""
    for start in range(0, picture.size, _STEP_BYTES):
        part = picture.part(start, _STEP_BYTES)
        os.pwrite(file, as_bytes(part) if isinstance(part, str) else part, start)
