"""The LoRA adapters that an engine serves at this moment: found in their folder, loaded into vLLM, counted while used.

An adapter that has gone, or has a newer version, takes no new sequences, and is forgotten when its last one has ended.
vLLM itself forgets what was not used for long, and knows each version by a name of its own, so that no prefix that was
computed with one is ever taken for another.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import EngineUnavailableError
from engine.vllm.adapter_files import AdapterError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from engine.vllm.adapter_folder import AdapterCopy, AdapterFolder

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class AdapterVersion:
    """An adapter as it was found once.

    Attributes:
        handle: what the engine is told to use it.
        users: sequences that run on it.
        was_idle: whether it was without any at the last look.
    """

    copy: AdapterCopy
    handle: Any
    users: int = 0
    was_idle: bool = False

    def leave(self) -> None:
        """End the use by one sequence."""
        self.users -= 1


class Adapters:
    """Belongs to the event loop in which ``settled`` is first awaited."""

    def __init__(
        self,
        folder: AdapterFolder,
        refresh_s: float,
        handle_of: Callable[[AdapterCopy], Any],
        load: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Prepare; nothing is looked at yet.

        Args:
            folder: where adapters are found.
            refresh_s: seconds between two looks; 0 looks once.
            handle_of: makes what the engine is told to use a copy.
            load: lets the engine load it; raises AdapterError where it cannot.
        """
        self._folder = folder
        self._refresh_s = refresh_s
        self._handle_of = handle_of
        self._load = load
        self._served: dict[str, AdapterVersion] = {}
        self._retired: list[AdapterVersion] = []
        self._first: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all that take new sequences."""
        return tuple(sorted(self._served))

    async def settled(self) -> None:
        """Return when the folder has been looked at for the first time; further looks go on by themselves."""
        if self._first is None:
            self._first = asyncio.create_task(self._look())
            if self._refresh_s:
                self._looking = asyncio.create_task(self._keep_looking(self._first))
        await asyncio.shield(self._first)

    def take(self, name: str) -> AdapterVersion:
        """Return an adapter that is served; it stays usable until it is left."""
        version = self._served[name]
        version.users += 1
        return version

    async def close(self) -> None:
        """Stop looking and delete the copies."""
        tasks = [task for task in (self._first, self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._folder.close)

    async def _keep_looking(self, first: asyncio.Task[None]) -> None:
        await asyncio.wait([first])
        while True:
            await asyncio.sleep(self._refresh_s)
            await self._look()

    async def _look(self) -> None:
        try:
            changes = await asyncio.to_thread(self._folder.look)
            for name in changes.gone:
                self._retire(name)
            for copy in changes.found:
                await self._serve(copy)
            await asyncio.to_thread(self._forget)
        except EngineUnavailableError:
            logger.debug("the engine has stopped before its adapters were loaded")
        except Exception:
            # What is served goes on being served, and the next look may succeed.
            logger.exception("the folder of adapters could not be looked at")

    async def _serve(self, copy: AdapterCopy) -> None:
        handle = self._handle_of(copy)
        try:
            await self._load(handle)
        except AdapterError as error:
            await asyncio.to_thread(self._folder.leave_out, copy, str(error))
            return
        self._retire(copy.name)
        self._served[copy.name] = AdapterVersion(copy, handle)
        logger.info("the adapter %s is served", copy.name)

    def _retire(self, name: str) -> None:
        version = self._served.pop(name, None)
        if version is not None:
            self._retired.append(version)
            logger.info("the adapter %s, as it was, takes no new requests", name)

    def _forget(self) -> None:
        """Delete the copies of retired versions that were idle at two looks: a step that has begun may read one yet."""
        for version in tuple(self._retired):
            if version.users == 0 and version.was_idle:
                self._retired.remove(version)
                self._folder.drop(version.copy)
            version.was_idle = version.users == 0
