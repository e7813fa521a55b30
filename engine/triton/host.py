"""``CoreHost``: a core and its event loop, inside a process whose threads belong to somebody else.

It runs sequences for whoever hands it requests and replies. What it knows of Triton is nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING

from engine.errors import EngineError
from engine.triton.sender import Sender
from engine.triton.state import EngineState

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from engine.core import EngineCore, EngineRequest
    from engine.triton.sender import Outgoing, Reply

logger = logging.getLogger(__name__)

STATE_INTERVAL_S = 1.0
CLOSE_TIMEOUT_S = 10.0


class CoreHost:
    """Owns the event loop in which a core lives, and the sender of what it draws."""

    def __init__(self, core: EngineCore, sender: Sender, observe: Callable[[EngineState, Sender], None]) -> None:
        """Start. ``observe`` is told the state every second, in a thread where it may block."""
        self._core = core
        self._sender = sender
        self._observe = observe
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-loop", daemon=True)
        self._thread.start()
        self._loop.call_soon_threadsafe(self._begin, self._keep_observing())

    def submit(self, request: EngineRequest, reply: Reply) -> None:
        """Run a sequence; returns at once, from any thread."""
        self._loop.call_soon_threadsafe(self._open, request, reply)

    def refuse(self, error: EngineError, reply: Reply) -> None:
        """Answer a request that cannot be run; returns at once, from any thread."""
        self._sender.end(self._sender.open(reply, lambda: None), error)

    def tell_state(self, take: Callable[[EngineState], None]) -> None:
        """Hand the state of this moment to ``take``, in a thread where it may block; returns at once."""
        asyncio.run_coroutine_threadsafe(self._tell(take), self._loop)

    def close(self) -> None:
        """End every sequence and free the core."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(CLOSE_TIMEOUT_S)
        self._sender.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)
        self._loop.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _open(self, request: EngineRequest, reply: Reply) -> None:
        def cancel() -> None:
            task.cancel()

        # The sender's threads know nothing of tasks: the call is made in the loop, when the task exists.
        outgoing = self._sender.open(reply, lambda: self._loop.call_soon_threadsafe(cancel))
        task = self._begin(self._run(request, outgoing))
        task.add_done_callback(lambda ended: self._note_end(outgoing, ended))

    async def _run(self, request: EngineRequest, outgoing: Outgoing) -> None:
        """Run one sequence; cancelling the task closes the core's iterator, which frees its slot."""
        async with aclosing(self._core.generate(request)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                self._sender.delta(outgoing, delta)

    def _note_end(self, outgoing: Outgoing, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._sender.end(outgoing, None)
            return
        error = task.exception()
        if error is not None and not isinstance(error, EngineError):
            logger.error("a sequence failed", exc_info=error)
        # A core whose iterator ends without a finish reason would leave a client waiting for ever.
        failure = error if isinstance(error, EngineError) else EngineError("the engine failed")
        self._sender.end(outgoing, failure)

    async def _state(self) -> EngineState:
        return EngineState(await self._core.health(), self._core.limits(), self._core.stats())

    async def _tell(self, take: Callable[[EngineState], None]) -> None:
        await asyncio.to_thread(take, await self._state())

    async def _keep_observing(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._observe, await self._state(), self._sender)
            except Exception:
                # The observer's faults are not the engine's, and the next state may be told. Its errors are Triton's.
                logger.exception("the engine's state could not be told")
            await asyncio.sleep(STATE_INTERVAL_S)

    async def _close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._core.close()
        await self._loop.shutdown_default_executor()
