"""A conversation between an engine that pushes and a reader that may be behind, without any process or socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from api.chat.answers import Step
from api.chat.choice import Choice
from api.chat.service import Conversation
from api.gemma4.events import ContentDelta
from api.gemma4.parse import Parser
from api.gemma4.prompt import PromptState
from api.gemma4.tokenizer import Gemma4Tokenizer
from engine.core import EngineDelta, EngineRequest, FinishReason, Receiver, Usage
from engine.errors import EngineError, QueueFullError
from tests.fakes.vocabulary import build_tokenizer_json

END = EngineDelta((), (), FinishReason.STOP, Usage(3, 0, 9))


@pytest.fixture(scope="module")
def tokenizer() -> Gemma4Tokenizer:
    """Return a small vocabulary."""
    return Gemma4Tokenizer.from_json(build_tokenizer_json())


class HandEngine:
    """An engine whose receivers the test calls; it is a running sequence, too."""

    def __init__(self) -> None:
        self.receivers: list[Receiver] = []
        self.closed = 0

    async def start(self, _request: EngineRequest, receiver: Receiver) -> HandEngine:
        """Keep the receiver."""
        self.receivers.append(receiver)
        return self

    def close(self) -> None:
        """Count."""
        self.closed += 1


class Reader:
    """A sink that is behind while ``is_behind``, and notes what it gets."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.is_behind = False
        self.finish_reason = ""

    def text(self, text: str) -> bool:
        """Note a text."""
        self.pieces.append(text)
        return not self.is_behind

    def write(self, step: Step) -> bool:
        """Note the text of a step."""
        self.pieces.append("".join(event.text for event in step.events if isinstance(event, ContentDelta)))
        return not self.is_behind

    def end(self, finish_reason: str) -> None:
        """Note the reason."""
        self.finish_reason = finish_reason


class Setup:
    """A conversation with some choices and readers."""

    def __init__(self, tokenizer: Gemma4Tokenizer, count: int = 1) -> None:
        self.engine = HandEngine()
        self.readers = [Reader() for _ in range(count)]
        choices = [self._choice(tokenizer) for _ in range(count)]
        prompt = SimpleNamespace(ids=(1, 2, 3), images=())
        self.conversation = Conversation(self.engine, prompt, choices)  # type: ignore[arg-type]
        self._encode = tokenizer.encode
        self.drained = asyncio.Event()
        self.drains = 0

    @staticmethod
    def _choice(tokenizer: Gemma4Tokenizer) -> Choice:
        parser = Parser(tokenizer, PromptState.CLOSED_THOUGHT, new_call_id=lambda: "call")
        request = EngineRequest("r", (1, 2, 3), 99)
        return Choice(request, parser, tokenizer, silent_stop_ids=frozenset(), one_by_one=False, thoughts=True)

    def say(self, text: str, index: int = 0) -> None:
        """Let the engine draw a text, an id at a time."""
        for token_id in self._encode(text):
            self.engine.receivers[index].ids((token_id,))

    async def drain(self) -> None:
        """Wait until the test says that the reader has caught up."""
        self.drains += 1
        await self.drained.wait()

    async def begin(self) -> asyncio.Task[None]:
        """Start, let every choice say one letter, and run."""
        beginning = asyncio.create_task(self.conversation.begin())
        await _until(lambda: len(self.engine.receivers) == len(self.readers))
        for index in range(len(self.readers)):
            self.say("A", index)
        await beginning
        return asyncio.create_task(self.conversation.run(self.readers, self.drain))


async def _until(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0)


def _run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


def test_tokens_are_written_within_the_engines_call(tokenizer: Gemma4Tokenizer) -> None:
    """A reader that keeps up has each token as soon as the engine's call returns: no task has to run between."""

    async def work() -> None:
        setup = Setup(tokenizer)
        running = await setup.begin()
        await _until(lambda: setup.readers[0].pieces)
        setup.say("BC")
        assert "".join(setup.readers[0].pieces) == "ABC"
        setup.engine.receivers[0].delta(END)
        assert setup.readers[0].finish_reason == "stop"
        await running
        assert setup.engine.closed == 1
        assert setup.conversation.completion_tokens == 9

    _run(work)


def test_what_comes_while_the_reader_is_behind_is_one_step(tokenizer: Gemma4Tokenizer) -> None:
    """Ids are held back, end included, until the reader has caught up; then they are read together."""

    async def work() -> None:
        setup = Setup(tokenizer)
        reader = setup.readers[0]
        running = await setup.begin()
        await _until(lambda: reader.pieces)
        reader.is_behind = True
        setup.say("B")
        setup.say("CDEFG")
        setup.engine.receivers[0].delta(END)
        assert reader.pieces == ["A", "B"]
        await _until(lambda: setup.drains)
        reader.is_behind = False
        setup.drained.set()
        await running
        assert reader.pieces == ["A", "B", "CDEFG"]
        assert reader.finish_reason == "stop"

    _run(work)


def test_only_the_choice_that_is_behind_is_held(tokenizer: Gemma4Tokenizer) -> None:
    """Choices are held one by one, and all end."""

    async def work() -> None:
        setup = Setup(tokenizer, 2)
        slow, fast = setup.readers
        running = await setup.begin()
        await _until(lambda: slow.pieces and fast.pieces)
        slow.is_behind = True
        for index in (0, 1):
            setup.say("BC", index)
            setup.engine.receivers[index].delta(END)
        assert (slow.pieces, fast.pieces) == (["A", "B"], ["A", "B", "C", ""])
        assert fast.finish_reason
        assert not running.done()
        setup.drained.set()
        await running
        assert "".join(slow.pieces) == "ABC"

    _run(work)


def test_failure_comes_after_what_was_held(tokenizer: Gemma4Tokenizer) -> None:
    """What the engine drew before it failed is written, then the error is raised."""

    async def work() -> None:
        setup = Setup(tokenizer)
        reader = setup.readers[0]
        running = await setup.begin()
        await _until(lambda: reader.pieces)
        reader.is_behind = True
        setup.say("BCD")
        setup.engine.receivers[0].failed(EngineError("lost"))
        setup.drained.set()
        with pytest.raises(EngineError, match="lost"):
            await running
        assert "".join(reader.pieces) == "ABCD"

    _run(work)


def test_failure_before_the_first_token_is_raised_at_once(tokenizer: Gemma4Tokenizer) -> None:
    """``begin`` raises what one choice failed with; closing frees what the others hold."""

    async def work() -> None:
        setup = Setup(tokenizer, 2)
        beginning = asyncio.create_task(setup.conversation.begin())
        await _until(lambda: len(setup.engine.receivers) == 2)
        setup.say("A")
        setup.engine.receivers[1].failed(QueueFullError("full"))
        with pytest.raises(QueueFullError):
            await beginning
        setup.conversation.close()
        assert setup.engine.closed >= 2

    _run(work)


def test_fault_of_a_reader_fails_its_request_only(tokenizer: Gemma4Tokenizer) -> None:
    """An exception while a token is written never reaches the engine's caller, who serves other requests as well."""

    async def work() -> None:
        setup = Setup(tokenizer)
        running = await setup.begin()
        await _until(lambda: setup.readers[0].pieces)
        setup.readers[0].text = lambda _text: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        setup.say("BC")
        with pytest.raises(ZeroDivisionError):
            await running
        assert setup.engine.closed

    _run(work)
