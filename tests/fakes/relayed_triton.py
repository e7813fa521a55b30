"""``python -m tests.fakes.relayed_triton RUNTIME CORE``: the real ``tritonserver``, our model, and a core elsewhere.

It runs in Triton's environment. The core that the model hosts passes everything on to the engine at the address
``CORE``, which a test holds in its own process, and back. Everything between is the product's: server, model, sender.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from config.runtime import EngineRuntime
from engine.__main__ import die_with_parent
from engine.core import EngineDelta, EngineLimits, EngineRequest, EngineStats
from engine.triton.client import EngineClient
from engine.triton.server_process import Listeners, TritonServer

CORE_FILE = "core"
MODEL_FILE = '''"""The model of a test."""

from tests.fakes.relayed_triton import RelayModel as TritonPythonModel
'''


class RelayCore:
    """An ``EngineCore`` that has another engine do the work."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: EngineClient | None = None
        self._limits, self._stats = asyncio.run(self._first_look())

    async def _first_look(self) -> tuple[EngineLimits, EngineStats]:
        client = EngineClient([self._address])
        try:
            return await client.limits(), await client.stats()
        finally:
            await client.close()

    @property
    def client(self) -> EngineClient:
        """The client; it belongs to the loop in which the model runs its core."""
        if self._client is None:
            self._client = EngineClient([self._address])
        return self._client

    async def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        """Pass on what the engine draws."""
        async with aclosing(self.client.generate(request)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                yield delta

    async def abort(self, request_id: str) -> None:
        """Do nothing: sequences end when their iterator is closed."""

    async def health(self) -> bool:
        """Ask the engine, and note what it tells of itself."""
        limits, self._stats = await self.client.limits(), await self.client.stats()
        self._limits = replace(limits, adapters=await self.client.adapters())
        return await self.client.ready()

    def limits(self) -> EngineLimits:
        """Return what the engine told last."""
        return self._limits

    def stats(self) -> EngineStats:
        """Return what the engine told last."""
        return self._stats

    async def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            await self._client.close()


class RelayServer(TritonServer):
    """Triton with the model of a test."""

    def __init__(self, runtime: EngineRuntime, folder: Path, core: str) -> None:
        super().__init__(runtime, Listeners(), folder)
        self._core = core

    def write_models(self) -> None:
        """Write the product's repository with another model file."""
        super().write_models()
        model = self._folder / "models" / "gemma4"
        (model / "1" / "model.py").write_text(MODEL_FILE)
        (model / CORE_FILE).write_text(self._core)


def __getattr__(name: str) -> Any:
    """Return the model; it can be defined only where Triton's own module is, in the model's process."""
    if name != "RelayModel":
        raise AttributeError(name)
    from engine.triton import model  # noqa: PLC0415 - see above

    class RelayModel(model.TritonPythonModel):
        """The product's model with a relay in it."""

        def initialize(self, args: dict[str, str]) -> None:
            """Start."""
            address = (Path(args["model_repository"]) / CORE_FILE).read_text()
            model.load_core = lambda _runtime: RelayCore(address)
            # A test makes its engine sick and well again; that a sick one ends the server has a test of its own.
            model._end_server = lambda: None
            super().initialize(args)

    return RelayModel


async def _serve(runtime: EngineRuntime, core: str) -> None:
    folder = Path(runtime.endpoint.removeprefix("unix:")).parent / "triton"
    folder.mkdir(exist_ok=True)
    await RelayServer(runtime, folder, core).run()


def main() -> None:
    """Serve until killed."""
    die_with_parent()
    path, core = sys.argv[1:]
    asyncio.run(_serve(EngineRuntime.model_validate_json(Path(path).read_bytes()), core))


if __name__ == "__main__":
    main()
