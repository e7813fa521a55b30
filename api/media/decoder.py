"""One decoder process as the API process sees it: started, given one picture at a time, killed when it fails.

Pixels come back through shared memory that is made here, belongs to one result alone and cannot be cut short by the
other side, so that nothing has to be copied out of it. ``api.media.decoder_pool`` decides which decoder gets which
picture.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from api.media.decoder_wire import (
    INLINE_BYTES,
    MAX_REPLY_BYTES,
    MAX_RESULT_BYTES,
    READY,
    Job,
    Outcome,
    Reply,
    ppm_header,
)
from api.media.encoded import EncodedPicture
from api.media.errors import DecodeError
from api.media.size import TOKEN_SIDE, Budget
from config.environment import bare_environment
from engine.core import Image

START_TIMEOUT_S: Final = 30.0
"""A decoder starts in 0.2 s; a machine may be very busy."""
_STOP_TIMEOUT_S: Final = 5.0
_SMALL_BYTES: Final = 512 * 1024
"""What is written in the event loop itself, in less time than handing it to a thread takes."""
_STEP_BYTES: Final = 64 * 1024
_GUARD: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class DecoderLostError(Exception):
    """The decoder has died, hung, or answered nonsense; it can only be replaced."""


@dataclass(frozen=True, slots=True)
class DecoderLimits:
    """What decoders may use, each for itself."""

    processes: int = 2
    """How many there may be."""
    memory_bytes: int = 2 * 1024**3
    timeout_s: int = 20
    """For one picture."""
    max_image_bytes: int = 20 * 1024 * 1024
    """Largest file."""
    max_waiting: int = 256
    """Pictures that may wait for a decoder."""


class Decoder:
    """A running decoder process. Not for use by two pictures at a time."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket, limits: DecoderLimits) -> None:
        self._process = process
        self._channel = channel
        self._limits = limits
        self.pictures = 0
        """How many it was given."""

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs and listens."""
        if self._process.poll() is not None:
            return False
        try:
            # It says nothing unasked: what can be read now is the end.
            return bool(self._channel.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    @classmethod
    async def start(cls, limits: DecoderLimits) -> Decoder:
        """Start a process and wait until it takes pictures.

        Raises:
            OSError: it could not be started.
            DecoderLostError: it died, or was not ready in time.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
            # Starting holds up the calling thread until the program is loaded, and the event loop must not wait.
            try:
                process = await asyncio.to_thread(_spawn, theirs, limits)
            except BaseException:
                ours.close()
                raise
        decoder = cls(process, ours, limits)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                greeting = await decoder._receive()
        except TimeoutError as error:
            await decoder.kill()
            raise DecoderLostError("it was not ready in time") from error
        except BaseException:
            await decoder.kill()
            raise
        if greeting != READY:
            await decoder.kill()
            raise DecoderLostError("it does not speak as a decoder does")
        return decoder

    async def decode(self, picture: EncodedPicture, budget: Budget) -> Image:
        """Return the sized picture. After ``DecoderLostError`` the decoder must be killed.

        Raises:
            DecodeError: the picture is at fault.
            DecoderLostError: the decoder has died, hung or answered nonsense.
        """
        self.pictures += 1
        with _open_result() as result:
            try:
                async with asyncio.timeout(self._limits.timeout_s):
                    await self._send(picture, budget, result)
                    reply = Reply.decode(await self._receive())
            except TimeoutError as error:
                raise DecoderLostError(f"the image takes longer than {self._limits.timeout_s} s to decode") from error
            except (OSError, ValueError) as error:
                raise DecoderLostError("the image cannot be decoded") from error
            if reply.outcome is Outcome.REFUSED:
                raise DecodeError(reply.reason)
            return _map(result, reply, budget)

    async def kill(self) -> None:
        """End the process at once, whatever it does, and forget it."""
        self._channel.close()
        self._process.kill()
        # A killed process is gone within milliseconds, but collecting it must not hold up the event loop.
        await asyncio.to_thread(self._process.wait, _STOP_TIMEOUT_S)

    async def _send(self, picture: EncodedPicture, budget: Budget, result: int) -> None:
        size = picture.stop - picture.start
        if size <= INLINE_BYTES:
            job = Job(budget, picture.is_base64, _bytes(picture.data[picture.start : picture.stop]))
            socket.send_fds(self._channel, job.encode(), [result])
            return
        with _open_memory("picture") as source:
            if size <= _SMALL_BYTES:
                _write(source, picture)
            else:
                await asyncio.to_thread(_write, source, picture)
            socket.send_fds(self._channel, Job(budget, picture.is_base64).encode(), [result, source])

    async def _receive(self) -> bytes:
        """Return the next message.

        Raises:
            DecoderLostError: the process has died.
            OSError: the same.
        """
        message = await asyncio.get_running_loop().sock_recv(self._channel, MAX_REPLY_BYTES)
        if not message:
            raise DecoderLostError("the image cannot be decoded: its decoder has died")
        return message


def _spawn(channel: socket.socket, limits: DecoderLimits) -> subprocess.Popen[bytes]:
    number = channel.fileno()
    values = {
        "socket": number,
        "memory-bytes": limits.memory_bytes,
        "timeout-s": limits.timeout_s,
        "max-image-bytes": limits.max_image_bytes,
    }
    arguments = [f"--{name}={value}" for name, value in values.items()]
    # No variable of ours is for the decoder: hostile code in it finds no secret there.
    return subprocess.Popen(  # noqa: S603 - this interpreter, with arguments made here
        [sys.executable, "-m", "api.media.decoder_process", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=bare_environment(),
        pass_fds=(number,),
    )


def _bytes(data: bytes | bytearray | str) -> bytes:
    if not isinstance(data, str):
        return bytes(data)
    try:
        return data.encode("ascii")
    except UnicodeEncodeError as error:
        raise DecodeError("it is not valid base64; send the file's bytes in base64, whole") from error


def _write(file: int, picture: EncodedPicture) -> None:
    """Write a picture in steps: what a step copies stays in the processor's cache, and other threads get their turn."""
    data: str | memoryview = picture.data if isinstance(picture.data, str) else memoryview(picture.data)
    for start in range(picture.start, picture.stop, _STEP_BYTES):
        part = data[start : min(start + _STEP_BYTES, picture.stop)]
        os.write(file, _bytes(part) if isinstance(part, str) else part)


@contextmanager
def _open_memory(name: str) -> Iterator[int]:
    """Open a file that exists in memory only."""
    file = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _open_result() -> Iterator[int]:
    """Open shared memory for the largest picture; what is not written takes no memory."""
    with _open_memory("pixels") as file:
        os.ftruncate(file, MAX_RESULT_BYTES)
        # Cut short by the other side, it would be a crash of this process where it is read.
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _GUARD)
        yield file


def _map(result: int, reply: Reply, budget: Budget) -> Image:
    """Return the picture in shared memory, which lives as long as someone holds the picture.

    Raises:
        DecoderLostError: the reply promises a picture that cannot be.
    """
    width, height = reply.width, reply.height
    tokens = (width // TOKEN_SIDE) * (height // TOKEN_SIDE)
    if width % TOKEN_SIDE or height % TOKEN_SIDE or not 0 < tokens <= budget.tokens:
        raise DecoderLostError("the image cannot be decoded")
    start = len(ppm_header(width, height))
    end = start + width * height * 3
    pixels = memoryview(mmap.mmap(result, end, prot=mmap.PROT_READ))[start:]
    return Image(rgb=pixels, width=width, height=height)
