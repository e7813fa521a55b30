"""A finished prompt: ids for the engine, text for people, pictures in order, and the state that the model is left in.

``PromptBuilder`` is the one way to make it: text goes in as text and can never become a special token; special tokens
go in as ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from api.chat.request import ImagePart, MediaKind, MediaPart, ResolvedImage
from api.gemma4.errors import VocabularyError
from api.gemma4.tokenizer import Gemma4Tokenizer
from engine.core import Image


class PromptState(StrEnum):
    """Where a prompt ends, and so what the first generated id belongs to."""

    NEW_TURN = "new_turn"
    """Right after the header of the model's turn: a thought or an answer may follow."""
    OPEN_THOUGHT = "open_thought"
    """Inside a thought: it goes on until it is closed."""
    CLOSED_THOUGHT = "closed_thought"
    """Right after an empty thought: the answer follows."""
    CONTINUED = "continued"
    """Inside the answer of a turn that goes on, or inside ``Prompt.open_call``."""


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A tool call that the prompt leaves unfinished. ``ids`` is what stands after its opening token.

    ``json_length`` is how many characters of its arguments, as compact JSON, the client already has.
    """

    ids: tuple[int, ...]
    json_length: int = 0
    call_id: str | None = None


Segment = str | int | tuple[int, ...] | ResolvedImage


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine is given. The n-th image fills the n-th run of image ids."""

    ids: tuple[int, ...]
    images: tuple[Image, ...]
    state: PromptState
    segments: tuple[Segment, ...]
    tokenizer: Gemma4Tokenizer
    open_call: OpenCall | None = None

    @property
    def text(self) -> str:
        """The prompt as text: special tokens by name, each picture as one placeholder."""
        return "".join(self._spell(segment) for segment in self.segments)

    def _spell(self, segment: Segment) -> str:
        if isinstance(segment, str):
            return segment
        if isinstance(segment, ResolvedImage):
            segment = self.tokenizer.special.image
        return self.tokenizer.decode_marked((segment,) if isinstance(segment, int) else segment)


class PromptBuilder:
    """Collects texts and tokens and makes the prompt. Neighbouring texts are joined: they must be tokenised as one."""

    __slots__ = ("_ids", "_images", "_segments", "_special", "_texts", "_tokenizer")

    def __init__(self, tokenizer: Gemma4Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = tokenizer.special
        self._texts: list[str] = []
        self._ids: list[int] = []
        self._segments: list[Segment] = []
        self._images: list[Image] = []

    def extend(self, segments: Iterable[str | int]) -> None:
        """Add texts and token ids."""
        texts, ids, made = self._texts, self._ids, self._segments
        for segment in segments:
            if isinstance(segment, str):
                texts.append(segment)
            else:
                if texts:
                    self._flush()
                ids.append(segment)
                made.append(segment)

    def add(self, *segments: str | int) -> None:
        """Add texts and token ids."""
        self.extend(segments)

    def add_fragment(self, ids: tuple[int, ...]) -> None:
        """Add ids that were tokenised before; they begin and end with special tokens."""
        self._flush()
        self._ids += ids
        self._segments.append(ids)

    def add_media(self, part: ImagePart | ResolvedImage | MediaPart) -> None:
        """Add a picture, or the one placeholder of media that is not there."""
        if isinstance(part, ResolvedImage):
            self._flush()
            self._images.append(part.image)
            self._ids.append(self._special.image_open)
            self._ids += [self._special.image] * part.soft_tokens
            self._ids.append(self._special.image_close)
            self._segments.append(part)
        elif isinstance(part, ImagePart):
            self.add(self._special.image)
        else:
            token_id = self._special.audio if part.kind is MediaKind.AUDIO else self._special.video
            if token_id < 0:
                msg = f"the vocabulary has no token for {part.kind}"
                raise VocabularyError(msg)
            self.add(token_id)

    def build(self, state: PromptState, open_call: OpenCall | None = None) -> Prompt:
        """Make the prompt of everything that was added."""
        self._flush()
        return Prompt(tuple(self._ids), tuple(self._images), state, tuple(self._segments), self._tokenizer, open_call)

    def _flush(self) -> None:
        """Tokenise the texts in hand."""
        texts = self._texts
        text = texts[0] if len(texts) == 1 else "".join(texts)
        texts.clear()
        if text:
            self._ids += self._tokenizer.encode(text)
            self._segments.append(text)
