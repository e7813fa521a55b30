"""The fixed questions of the accuracy gate, and how they become prompts that any core takes.

The questions are data (``data/questions.json``): easy ones, a few without a right answer whose wording alone is
compared, and some about drawn pictures. How answers are compared is left to ``gate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter
from tokenizers import Tokenizer

from engine.core import Image
from engine_build.errors import TokenizerFileError

DATA: Final = Path(__file__).with_name("data") / "questions.json"
STOP_TOKENS: Final = ("<eos>", "<turn|>", "<|tool_response>")
"""Tokens that end a model turn, by name: ids differ between vocabularies."""
PICTURE_SIDE: Final = 192
PICTURE_CELL: Final = 48
"""Side of the square of pixels that becomes one image token."""
# With thinking off the model answers after an empty thought.
_PROMPT: Final = "<bos><|turn>user\n{picture}{text}<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"


class Drawing(BaseModel):
    """A plain shape in the middle of a white square."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: Literal["circle", "square"]
    rgb: tuple[int, int, int]

    def drawn(self) -> Image:
        """Draw it."""
        side = PICTURE_SIDE
        rows, columns = np.mgrid[0:side, 0:side] - (side - 1) / 2
        radius = side // 3
        is_inside = rows**2 + columns**2 <= radius**2
        if self.shape == "square":
            is_inside = np.maximum(abs(rows), abs(columns)) <= radius
        pixels = np.full((side, side, 3), 255, dtype=np.uint8)
        pixels[is_inside] = self.rgb
        return Image(pixels.tobytes(), side, side)


class Question(BaseModel):
    """One question; an answer is right when it holds one of ``expect``, whatever the case. None: any answer will do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ask: str
    expect: tuple[str, ...]
    picture: Drawing | None = None

    def is_answered_by(self, text: str) -> bool | None:
        """Tell whether an answer is right; None where there is no right one."""
        return any(part in text.lower() for part in self.expect) if self.expect else None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    questions: tuple[Question, ...]


@cache
def all_questions() -> tuple[Question, ...]:
    """Return the questions; their order is part of the format, because answers are stored by it."""
    return TypeAdapter(_File).validate_json(DATA.read_bytes()).questions


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a core is given for one question."""

    ids: tuple[int, ...]
    images: tuple[Image, ...] = ()


class PromptWriter:
    """Writes prompts with one checkpoint's tokenizer."""

    def __init__(self, tokenizer: Path) -> None:
        """Read ``tokenizer.json``.

        Raises:
            TokenizerFileError: it cannot be read, or lacks a token that every turn needs.
        """
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:
            raise TokenizerFileError(f"{tokenizer}: cannot be read: {error}") from error
        found: list[int] = []
        for name in STOP_TOKENS:
            number = self._tokenizer.token_to_id(name)
            if number is None:
                raise TokenizerFileError(f"{tokenizer}: lacks the token {name}")
            found.append(number)
        self.stop_ids: tuple[int, ...] = tuple(found)

    def question(self, question: Question) -> Prompt:
        """Return the prompt of a question, thinking off."""
        if question.picture is None:
            return Prompt(self._ids(_PROMPT.format(picture="", text=question.ask)))
        image = question.picture.drawn()
        places = "<|image>" + "<|image|>" * image.soft_tokens + "<image|>"
        return Prompt(self._ids(_PROMPT.format(picture=places, text=question.ask)), (image,))

    def text(self, ids: Sequence[int]) -> str:
        """Return drawn ids as text, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)
