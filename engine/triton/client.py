"""``EngineClient``: the API's only way to an engine, over KServe v2 gRPC.

Which of several engines gets a sequence is ``engine.triton.balancer``'s; how it travels, ``engine.triton.endpoint``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import MISSING
from typing import TYPE_CHECKING

from engine.core import EngineReport, EngineStats
from engine.errors import EngineError, EngineUnavailableError
from engine.triton.balancer import start_somewhere
from engine.triton.connection import MAX_RECONNECT_PAUSE_S, ConnectionOptions
from engine.triton.endpoint import Endpoint
from engine.triton.mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from engine.core import EngineDelta, EngineLimits, EngineRequest, Receiver, Running

RECONNECT_WAIT_S = MAX_RECONNECT_PAUSE_S + 0.5
"""So long an engine that has just started may go unnoticed by a connection that failed before."""


class EngineClient:
    """Talks to one or more engines that serve the same model."""

    def __init__(self, endpoints: Sequence[str], options: ConnectionOptions | None = None) -> None:
        """Prepare channels; nothing is sent yet. Must be called in the event loop that will use it.

        Args:
            endpoints: ``unix:/path`` or ``host:port`` each, at least one.
            options: deadlines, keep-alive and TLS; None takes the defaults.

        Raises:
            ValueError: no endpoint is given.
            OSError: a TLS file cannot be read.
        """
        if not endpoints:
            message = "no engine endpoint is given"
            raise ValueError(message)
        self._endpoints = [Endpoint(address, options or ConnectionOptions()) for address in endpoints]
        self._generating: dict[str, set[tuple[Mailbox, Running]]] = {}

    async def start(self, request: EngineRequest, receiver: Receiver) -> Running:
        """Start a sequence at the endpoint that has the fewest; close what is returned, whatever happens.

        Raises:
            EngineUnavailableError: no engine can be reached. All other errors go to the receiver.
        """
        return await start_somewhere(self._endpoints, request, receiver)

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        """Yield deltas until one carries a finish reason; closing the iterator aborts the sequence.

        Raises:
            EngineError: the class that the engine raised, or EngineUnavailableError when it is lost.
        """
        mailbox = Mailbox()
        running = await self.start(request, mailbox)
        entry = (mailbox, running)
        self._generating.setdefault(request.request_id, set()).add(entry)
        try:
            while True:
                delta = await mailbox.take()
                yield delta
                if delta.finish_reason is not None:
                    return
        finally:
            running.close()
            self._forget(request.request_id, entry)

    def _forget(self, request_id: str, entry: tuple[Mailbox, Running]) -> None:
        entries = self._generating.get(request_id, set())
        entries.discard(entry)
        if not entries:
            self._generating.pop(request_id, None)

    async def abort(self, request_id: str) -> None:
        """End what ``generate`` runs under that id; its consumers get an error. Unknown ids are ignored."""
        for mailbox, running in tuple(self._generating.get(request_id, ())):
            running.close()
            mailbox.failed(EngineUnavailableError("the sequence was aborted"))

    async def ready(self) -> bool:
        """Tell whether at least one engine has loaded its model and can generate; another that hangs delays nobody."""
        asking = [asyncio.create_task(endpoint.is_ready()) for endpoint in self._endpoints]
        try:
            for answer in asyncio.as_completed(asking):
                if await answer:
                    return True
            return False
        finally:
            for task in asking:
                task.cancel()

    async def limits(self) -> EngineLimits:
        """Return the limits of the first engine that can tell them; an engine is asked once per connection.

        Where none can, waits until one is connected, for ``RECONNECT_WAIT_S`` seconds at most, and asks them once more.

        Raises:
            EngineUnavailableError: none has loaded its model.
        """
        limits = await self._told_limits()
        if limits is None:
            await self._wait_for_a_connection()
            limits = await self._told_limits()
        if limits is None:
            message = "no engine has loaded its model yet"
            raise EngineUnavailableError(message)
        return limits

    async def adapters(self) -> tuple[str, ...]:
        """Return the adapters that all engines have which can be asked; a sequence may run at any of them.

        Raises:
            EngineUnavailableError: none has loaded its model.
        """
        asked = await asyncio.gather(*(endpoint.adapters() for endpoint in self._endpoints), return_exceptions=True)
        told = [names for names in asked if not isinstance(names, BaseException)]
        for error in asked:
            if isinstance(error, BaseException) and (not told or not isinstance(error, EngineUnavailableError)):
                raise error
        return tuple(name for name in told[0] if all(name in names for names in told))

    async def _told_limits(self) -> EngineLimits | None:
        for endpoint in self._endpoints:
            with contextlib.suppress(EngineUnavailableError):
                return await endpoint.limits()
        return None

    async def _wait_for_a_connection(self) -> None:
        waiting = [asyncio.create_task(endpoint.wait_connected()) for endpoint in self._endpoints]
        try:
            await asyncio.wait(waiting, timeout=RECONNECT_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def stats(self) -> EngineStats:
        """Return the sums over all engines that answer."""
        totals = {name: 0 for name, field in EngineStats.__dataclass_fields__.items() if field.default is MISSING}
        for report in await self.reports():
            for key in EngineStats.__dataclass_fields__.keys() & report.counts.keys():
                totals[key] = totals.get(key, 0) + report.counts[key]
        return EngineStats(**totals)

    async def reports(self, timeout_s: float = 5.0) -> list[EngineReport]:
        """Return what each engine tells of itself within ``timeout_s`` seconds, in the order of their addresses."""
        return await asyncio.gather(*(_report(endpoint, timeout_s) for endpoint in self._endpoints))

    async def close(self) -> None:
        """Cancel everything and close the channels."""
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints))


async def _report(endpoint: Endpoint, timeout_s: float) -> EngineReport:
    try:
        async with asyncio.timeout(timeout_s):
            limits = await endpoint.limits()
            return EngineReport(endpoint.address, limits, await endpoint.statistics())
    except (EngineError, TimeoutError):
        return EngineReport(endpoint.address)
