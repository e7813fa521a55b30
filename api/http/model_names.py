"""Which names requests may use: the model's own, and those of the LoRA adapters that the engine has at this moment.

The engine owns the truth. What it last told is remembered, so that a request for a known adapter costs nothing; one
that has gone meanwhile the engine itself refuses.
"""

from __future__ import annotations

import asyncio

from api.chat.engine import Engine
from api.errors import ModelNotFoundError
from engine.errors import EngineError


class ModelNames:
    """The names of one server."""

    def __init__(self, served: tuple[str, ...], engine: Engine, *, may_have_adapters: bool) -> None:
        """Prepare; an engine that has no adapters is never asked for them."""
        self.served = served
        self._engine = engine
        self._may_have_adapters = may_have_adapters
        self._known: tuple[str, ...] = ()
        self._asking: asyncio.Task[tuple[str, ...]] | None = None

    async def adapter_of(self, name: str) -> str | None:
        """Return the adapter that a request's ``model`` stands for; None for the model itself.

        Raises:
            ModelNotFoundError: nothing has this name.
            engine.errors.EngineUnavailableError: it may be an adapter's, and the engine cannot be asked.
        """
        if name in self.served:
            return None
        if name not in self._known and name not in await self.adapters():
            raise ModelNotFoundError(name)
        return name

    async def adapters(self) -> tuple[str, ...]:
        """Return the adapters that the engine has now.

        Raises:
            engine.errors.EngineUnavailableError: it cannot be asked.
        """
        if not self._may_have_adapters:
            return ()
        if self._asking is None or self._asking.done():
            # One question at a time, however many ask for names that nobody knows.
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(_take_note)
        return await asyncio.shield(self._asking)

    async def last_adapters(self, timeout_s: float) -> tuple[str, ...]:
        """Return the adapters that the engine has now, or had when it last told, if it does not tell in time."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.adapters()
        except (TimeoutError, EngineError):
            return self._known

    async def _ask(self) -> tuple[str, ...]:
        self._known = tuple(name for name in await self._engine.adapters() if name not in self.served)
        return self._known


def _take_note(asking: asyncio.Task[tuple[str, ...]]) -> None:
    """Look at a failure: whoever asked may have left, and nobody else would."""
    if not asking.cancelled():
        asking.exception()
