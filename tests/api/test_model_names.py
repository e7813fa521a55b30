"""When the engine is asked for its adapters, and what a name is while it cannot be asked."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from api.errors import ModelNotFoundError
from api.http.model_names import ModelNames
from engine.errors import EngineUnavailableError

PATIENCE_S = 60.0


class Asked:
    """Stands where the engine's client stands: tells its adapters when the test lets it, and counts."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.is_there = True
        self.times = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def adapters(self) -> tuple[str, ...]:
        """Tell them."""
        self.times += 1
        await self.may_answer.wait()
        if not self.is_there:
            raise EngineUnavailableError("it is away")
        return self.names


def names_of(engine: Asked, *, may_have_adapters: bool = True) -> ModelNames:
    """Return the names of a server with one model."""
    return ModelNames(("model", "alias"), cast("Any", engine), may_have_adapters=may_have_adapters)


def test_engine_without_adapters_is_never_asked() -> None:
    """An unknown name costs nothing, and is unknown also while the engine is away."""

    async def body() -> int:
        engine = Asked()
        engine.is_there = False
        names = names_of(engine, may_have_adapters=False)
        with pytest.raises(ModelNotFoundError):
            await names.adapter_of("poet")
        assert await names.last_adapters(PATIENCE_S) == ()
        return engine.times

    assert asyncio.run(body()) == 0


def test_known_names_cost_nothing() -> None:
    """The model's own never do, an adapter's only the first time."""

    async def body() -> int:
        engine = Asked()
        engine.names = ("poet",)
        names = names_of(engine)
        assert [await names.adapter_of(name) for name in ("model", "alias")] == [None, None]
        assert engine.times == 0
        assert [await names.adapter_of("poet") for _ in range(3)] == ["poet"] * 3
        return engine.times

    assert asyncio.run(body()) == 1


def test_many_unknown_names_are_one_question() -> None:
    """However many requests come with them at the same time."""

    async def body() -> int:
        engine = Asked()
        engine.may_answer.clear()
        names = names_of(engine)
        asking = [asyncio.create_task(names.adapter_of(f"name-{number}")) for number in range(50)]
        async with asyncio.timeout(PATIENCE_S):
            while not engine.times:
                await asyncio.sleep(0)
            asking[0].cancel()
            engine.may_answer.set()
            results = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert all(isinstance(result, ModelNotFoundError) for result in results[1:])
        return engine.times

    assert asyncio.run(body()) == 1


def test_engine_that_is_away_hides_nothing() -> None:
    """A name that may be an adapter's is not called unknown; those that it told last are still listed and tried."""

    async def body() -> None:
        engine = Asked()
        engine.names = ("poet",)
        names = names_of(engine)
        assert await names.adapters() == ("poet",)
        engine.is_there = False
        with pytest.raises(EngineUnavailableError):
            await names.adapter_of("late")
        assert await names.adapter_of("poet") == "poet"
        assert await names.last_adapters(PATIENCE_S) == ("poet",)
        engine.may_answer.clear()
        assert await names.last_adapters(0.01) == ("poet",)
        engine.is_there, engine.names = True, ()
        engine.may_answer.set()
        assert await names.adapters() == ()

    asyncio.run(body())
