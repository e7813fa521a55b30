"""A few decoder processes, handed out to one picture at a time and replaced when they die, hang or have grown old.

Decoders are started when they are first needed, up to the limit; ``warm`` starts the first one ahead of that. Pictures
wait in order, with a limit and a deadline. What a decoder is and does stands in ``api.media.decoder``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from api.errors import OverloadedError, UnavailableError
from api.media.decoder import Decoder, DecoderLimits, DecoderLostError
from api.media.encoded import EncodedPicture
from api.media.errors import DecodeError
from api.media.size import Budget
from engine.core import Image

MAX_PICTURES: Final = 1000
"""Pictures after which a decoder is replaced, so that nothing that codecs leave behind can pile up."""
_WAIT_ROUNDS: Final = 3
"""A picture waits for a decoder as long as this many pictures may take."""

_log = logging.getLogger("api.media")


class DecoderBusyError(OverloadedError):
    """More pictures wait than may, or one has waited too long."""

    code = "decoders_busy"


class DecoderUnavailableError(UnavailableError):
    """No decoder can be started."""

    code = "decoders_unavailable"


class DecoderPool:
    """Decodes pictures outside this process. Belongs to one event loop."""

    def __init__(self, limits: DecoderLimits) -> None:
        self._limits = limits
        self._places = asyncio.Semaphore(limits.processes)
        self._idle: list[Decoder] = []
        self._busy: set[Decoder] = set()
        self._tasks: set[asyncio.Task[Image]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._warming: asyncio.Task[None] | None = None
        self._waiting = 0
        self._is_closed = False

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of all decoders that run."""
        return tuple(decoder.pid for decoder in (*self._idle, *self._busy))

    def warm(self, delay_s: float = 0.0) -> None:
        """Start one decoder in the background, so that the first picture need not wait for it."""
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._start_warming)

    async def decode(self, picture: EncodedPicture, budget: Budget) -> Image:
        """Return the sized picture.

        Raises:
            DecodeError: the picture is at fault, or took its decoder with it.
            DecoderBusyError: too many pictures wait.
            DecoderUnavailableError: no decoder can be started.
        """
        if self._waiting >= self._limits.max_waiting:
            raise DecoderBusyError("The server is busy decoding images. Try again shortly.")
        await self._take_place()
        # A client that goes away does not stop the work: killing a decoder costs more than letting it finish.
        task = asyncio.create_task(self._run(picture, budget))
        self._tasks.add(task)
        task.add_done_callback(self._finish)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End all decoders, and what they do with them."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks, *([self._warming] if self._warming else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(decoder.kill() for decoder in self._idle))
        self._idle.clear()

    async def _take_place(self) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.timeout_s * _WAIT_ROUNDS):
                await self._places.acquire()
        except TimeoutError as error:
            raise DecoderBusyError("The server is busy decoding images. Try again shortly.") from error
        finally:
            self._waiting -= 1

    def _finish(self, task: asyncio.Task[Image]) -> None:
        self._places.release()
        self._tasks.discard(task)
        if not task.cancelled():
            # Marks an error as seen, also when the client that it was for has gone.
            task.exception()

    async def _run(self, picture: EncodedPicture, budget: Budget) -> Image:
        decoder = await self._take()
        self._busy.add(decoder)
        try:
            image = await decoder.decode(picture, budget)
        except DecodeError:
            await self._put_back(decoder)
            raise
        except DecoderLostError as error:
            _log.warning("a decoder was lost on a picture and is replaced: %s", error)
            await self._drop(decoder)
            raise DecodeError(str(error)) from error
        except BaseException:
            await self._drop(decoder)
            raise
        await self._put_back(decoder)
        return image

    async def _take(self) -> Decoder:
        """Return a decoder that runs, a new one if none is idle.

        Raises:
            DecoderUnavailableError: it cannot be started.
        """
        if not self._idle and self._warming is not None and not self._warming.done():
            await asyncio.wait({self._warming})
        while self._idle:
            decoder = self._idle.pop()
            if decoder.is_alive:
                return decoder
            await decoder.kill()
        try:
            return await Decoder.start(self._limits)
        except (OSError, DecoderLostError) as error:
            _log.exception("no decoder can be started")
            raise DecoderUnavailableError("Images cannot be decoded at the moment. Try again shortly.") from error

    async def _put_back(self, decoder: Decoder) -> None:
        if self._is_closed or decoder.pictures >= MAX_PICTURES:
            await self._drop(decoder)
            return
        self._busy.discard(decoder)
        self._idle.append(decoder)

    async def _drop(self, decoder: Decoder) -> None:
        self._busy.discard(decoder)
        await decoder.kill()

    def _start_warming(self) -> None:
        if not self.pids:
            self._warming = asyncio.create_task(self._warm())

    async def _warm(self) -> None:
        try:
            self._idle.append(await Decoder.start(self._limits))
        except (OSError, DecoderLostError):
            # The first picture tries again, and says so if it fails, too.
            _log.warning("the first image decoder could not be started", exc_info=True)
