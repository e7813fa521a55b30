"""What the chat service needs of the engine's client."""

from __future__ import annotations

from typing import Protocol

from engine.core import EngineLimits, EngineReport, EngineRequest, Receiver, Running


class Engine(Protocol):
    """Starts sequences and knows what they may be."""

    async def start(self, request: EngineRequest, receiver: Receiver) -> Running:
        """Start a sequence whose deltas the receiver takes; close what is returned, whatever happens.

        Raises:
            EngineUnavailableError: the engine cannot be reached. All other errors go to the receiver.
        """
        ...

    async def limits(self) -> EngineLimits:
        """Return the engine's limits.

        Raises:
            EngineUnavailableError: while the engine cannot be reached.
        """
        ...

    async def adapters(self) -> tuple[str, ...]:
        """Return the names of the LoRA adapters that the engine has at this moment.

        Raises:
            EngineUnavailableError: while the engine cannot be reached.
        """
        ...

    async def ready(self) -> bool:
        """Tell whether the engine can generate now."""
        ...

    async def reports(self, timeout_s: float) -> list[EngineReport]:
        """Return what each engine tells of itself within ``timeout_s`` seconds."""
        ...
