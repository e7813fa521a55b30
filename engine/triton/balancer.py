"""Which engine a sequence goes to: the one that has the fewest, and another one when that cannot take it.

A sequence that is lost before its first id was drawn nowhere, so it may start again; a later loss is its consumer's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.core import EngineDelta, EngineRequest, Receiver, Running
    from engine.errors import EngineError
    from engine.triton.endpoint import Endpoint


async def start_somewhere(endpoints: Sequence[Endpoint], request: EngineRequest, receiver: Receiver) -> Running:
    """Start a sequence; close what is returned, whatever happens.

    Raises:
        EngineUnavailableError: no engine can be reached.
    """
    if len(endpoints) == 1:
        return await endpoints[0].start(request, receiver)
    attempt = Attempt(endpoints, request, receiver)
    await attempt.start()
    return attempt


class Attempt:
    """A sequence that several engines could run: stands between the one that does and the receiver."""

    def __init__(self, endpoints: Sequence[Endpoint], request: EngineRequest, receiver: Receiver) -> None:
        """Prepare; nothing is started yet."""
        self._untried = list(endpoints)
        self._request = request
        self._receiver = receiver
        self._endpoint: Endpoint | None = None
        self._running: Running | None = None
        self._has_begun = False
        self._restart: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start at the best engine that can be reached.

        Raises:
            EngineUnavailableError: none can.
        """
        waiting = sorted(self._untried, key=_preference)
        for endpoint in waiting:
            try:
                await self._start_at(endpoint, is_patient=False)
            except EngineUnavailableError:
                endpoint.rest()
            else:
                return
        # All are away at this moment: one of them may be about to come back.
        await self._start_at(waiting[0], is_patient=True)

    async def _start_at(self, endpoint: Endpoint, *, is_patient: bool) -> None:
        self._running = await endpoint.start(self._request, self, is_patient=is_patient)
        self._endpoint = endpoint
        self._untried.remove(endpoint)

    def close(self) -> None:
        """End the sequence if it still runs, and let go of the receiver; harmless when repeated."""
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._running is not None:
            self._running.close()
            self._running = None

    # What the engine's answers call

    def ids(self, token_ids: tuple[int, ...]) -> None:
        """Pass ids on."""
        self._has_begun = True
        self._receiver.ids(token_ids)

    def delta(self, delta: EngineDelta) -> None:
        """Pass a delta on."""
        self._has_begun = True
        self._receiver.delta(delta)

    def failed(self, error: EngineError) -> None:
        """Start again elsewhere if the engine was not there for the sequence, else pass the error on."""
        is_lost = isinstance(error, EngineUnavailableError)
        if is_lost and self._endpoint is not None:
            self._endpoint.rest()
        if not is_lost or self._has_begun or not self._untried:
            self._receiver.failed(error)
            return
        # The one that failed is let go of first: it still counts this sequence.
        self.close()
        self._restart = asyncio.get_running_loop().create_task(self._start_again())

    async def _start_again(self) -> None:
        try:
            await self.start()
        except EngineUnavailableError as error:
            self._receiver.failed(error)
        finally:
            self._restart = None


def _preference(endpoint: Endpoint) -> tuple[bool, int]:
    return endpoint.is_resting, endpoint.outstanding
