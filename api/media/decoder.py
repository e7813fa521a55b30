"""One decoder process as the API process sees it: started, given one picture at a time, killed when it fails.

Pictures go there and pixels come back through the files of ``api.media.shared_memory``. ``api.media.decoder_pool``
decides which decoder gets which picture.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

from api.media.decoder_wire import (
    INLINE_BYTES,
    MAX_REPLY_BYTES,
    READY,
    Job,
    Outcome,
    Reply,
)
from api.media.encoded import EncodedPicture
from api.media.errors import DecodeError
from api.media.shared_memory import PictureFile, as_bytes, map_image, open_result
from api.media.size import TOKEN_SIDE, Budget
from config.environment import bare_environment
from engine.core import Image

START_TIMEOUT_S: Final = 30.0
"""A decoder starts in 0.2 s; a machine may be very busy."""
_STOP_TIMEOUT_S: Final = 5.0
_ALLOCATION: Final = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Memory in pages of 2 MiB where the kernel has them: a whole picture in small ones costs more than its decoding."""


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
        self._source = PictureFile()
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
        with open_result() as result:
            try:
                async with asyncio.timeout(self._limits.timeout_s):
                    await self._send(picture, budget, result)
                    reply = Reply.decode(await self._receive())
            except TimeoutError as error:
                raise DecoderLostError(f"the image takes longer than {self._limits.timeout_s} s to decode") from error
            except (OSError, ValueError) as error:
                raise DecoderLostError("the image cannot be decoded") from error
            self._source.shrink()
            if reply.outcome is Outcome.REFUSED:
                raise DecodeError(reply.reason)
            return _map(result, reply, budget)

    async def kill(self) -> None:
        """End the process at once, whatever it does, and forget it."""
        self._channel.close()
        self._source.close()
        self._process.kill()
        # A killed process is gone within milliseconds, but collecting it must not hold up the event loop.
        await asyncio.to_thread(self._process.wait, _STOP_TIMEOUT_S)

    async def _send(self, picture: EncodedPicture, budget: Budget, result: int) -> None:
        if picture.size <= INLINE_BYTES:
            job = Job(budget, picture.is_base64, as_bytes(picture.part(0, INLINE_BYTES)))
            socket.send_fds(self._channel, job.encode(), [result])
            return
        source = await self._source.fill(picture)
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
        env=bare_environment() | _ALLOCATION,
        pass_fds=(number,),
    )


def _map(result: int, reply: Reply, budget: Budget) -> Image:
    """Return the picture in shared memory, which lives as long as someone holds the picture.

    Raises:
        DecoderLostError: the reply promises a picture that cannot be.
    """
    width, height = reply.width, reply.height
    tokens = (width // TOKEN_SIDE) * (height // TOKEN_SIDE)
    if width % TOKEN_SIDE or height % TOKEN_SIDE or not 0 < tokens <= budget.tokens:
        raise DecoderLostError("the image cannot be decoded")
    return map_image(result, width, height)
