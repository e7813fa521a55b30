"""How full the KV cache is: asked of the library while sequences run, because it tells only what it is asked for."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.tensorrt_llm.library import Library

logger = logging.getLogger("engine")

INTERVAL_S = 1.0


class CacheWatch:
    """Belongs to one event loop."""

    def __init__(self, library: Library, is_busy: Callable[[], bool]) -> None:
        """Ask nothing yet; ``is_busy`` tells whether sequences run."""
        self._library = library
        self._is_busy = is_busy
        self._task: asyncio.Task[None] | None = None
        self._used = 0
        self._is_told = True
        self.tokens: int | None = None
        """Places in the cache; None as long as the library has not told them."""

    @property
    def used(self) -> int | None:
        """Places that sequences hold; without block reuse there are none when nothing runs."""
        if self.tokens is None:
            return None
        return self._used if self._is_busy() else 0

    def start(self) -> None:
        """Watch until nothing runs any more, unless the library has failed to tell; harmless when repeated."""
        if self._is_told and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while self._is_busy():
            try:
                use = await self._library.cache_use()
            except EngineError as error:
                # Whether the library still works is not this question's business.
                logger.warning("the KV cache is not watched: %s", error.message)
                self._is_told = False
                return
            if use is not None:
                self.tokens, self._used = use
            await asyncio.sleep(INTERVAL_S)

    async def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
