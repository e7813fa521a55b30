"""The questions of the gate, and the prompts they become."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.chat.request import ChatRequest, UserMessage
from api.gemma4.render import render
from api.gemma4.tokenizer import Gemma4Tokenizer
from engine_build.errors import TokenizerFileError
from engine_build.questions import PICTURE_CELL, PromptWriter, all_questions

DEMO = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe"


@pytest.fixture(scope="module")
def writer() -> PromptWriter:
    """Return a writer with the demo model's tokenizer."""
    return PromptWriter(DEMO / "tokenizer.json")


def test_there_are_enough_of_each_kind() -> None:
    """Questions with right answers, without, and about pictures; none twice."""
    questions = all_questions()

    assert len(questions) >= 30
    assert len({(one.ask, one.picture) for one in questions}) == len(questions)
    assert sum(one.picture is not None for one in questions) >= 4
    assert sum(not one.expect for one in questions) >= 3


def test_an_answer_is_judged_whatever_its_case() -> None:
    """A right answer in a sentence is right; questions without one have no verdict."""
    paris, story = all_questions()[0], next(one for one in all_questions() if not one.expect)

    assert paris.is_answered_by("The capital of France is PARIS.") is True
    assert paris.is_answered_by("Lyon") is False
    assert story.is_answered_by("Once upon a time") is None


def test_prompts_are_those_of_the_server(writer: PromptWriter) -> None:
    """The gate asks exactly as a chat request without thinking does."""
    question = all_questions()[0]
    tokenizer = Gemma4Tokenizer.from_json((DEMO / "tokenizer.json").read_text())
    request = ChatRequest(model="demo-moe", messages=(UserMessage(content=question.ask),))

    assert writer.question(question).ids == render(request, tokenizer).ids


def test_a_picture_has_a_place_for_each_cell(writer: PromptWriter) -> None:
    """As many image tokens stand in the prompt as the picture has cells, and the drawing shows its colour."""
    question = next(one for one in all_questions() if one.picture is not None)
    prompt = writer.question(question)
    image = prompt.images[0]
    token = prompt.ids[prompt.ids.index(max(prompt.ids, key=prompt.ids.count))]

    assert image.width % PICTURE_CELL == image.height % PICTURE_CELL == 0
    assert prompt.ids.count(token) == image.soft_tokens == 16
    assert bytes(question.picture.rgb) in bytes(image.rgb)
    assert bytes(image.rgb)[:3] == b"\xff\xff\xff"


def test_a_tokenizer_without_turns_is_refused(tmp_path: Path) -> None:
    """The token that is missing is named."""
    path = tmp_path / "tokenizer.json"
    path.write_text((DEMO / "tokenizer.json").read_text().replace("<turn|>", "<nothing|>"))

    with pytest.raises(TokenizerFileError, match=r"lacks the token <turn\|>"):
        PromptWriter(path)
    path.write_text("{}")
    with pytest.raises(TokenizerFileError, match="cannot be read"):
        PromptWriter(path)
