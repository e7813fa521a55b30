"""A finished prompt: ids for the engine, text for people, pictures in order, and the state that the model is left in.

``PromptBuilder`` is the one way to make it: text goes in as text and can never become a special token; special tokens
go in as ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from api.chat.request import ImagePart, MediaKind, MediaPart, ResolvedImage
from api.gemma4.errors import ContextError, VocabularyError
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


def check_length(
    characters: int, tokenizer: Gemma4Tokenizer, context_tokens: int | None, *, param: str = "messages"
) -> None:
    """Refuse text that cannot fit: to tokenise megabytes takes seconds, and a hundred times their memory.

    Raises:
        ContextError: naming ``param``.
    """
    if context_tokens is None:
        return
    least = tokenizer.least_tokens(characters)
    if least >= context_tokens:
        raise ContextError.of_prompt(f"at least {least}", context_tokens, param=param)


Segment = str | int | tuple[int, ...] | ResolvedImage


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine is given. The n-th image fills the n-th run of image ids.

    ``begun`` is how many of the last ids are the answer that is to be gone on with; None where it is not of text and
    calls alone.
    """

    ids: tuple[int, ...]
    images: tuple[Image, ...]
    state: PromptState
    segments: tuple[Segment, ...]
    tokenizer: Gemma4Tokenizer
    open_call: OpenCall | None = None
    begun: int | None = 0

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

    __slots__ = ("_context_tokens", "_images", "_parts", "_special", "_tokenizer", "extend")

    def __init__(self, tokenizer: Gemma4Tokenizer, context_tokens: int | None = None) -> None:
        """Begin an empty prompt; one that cannot fit ``context_tokens`` is refused before it is tokenised."""
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._special = tokenizer.special
        self._parts: list[Segment] = []
        self._images: list[Image] = []
        self.extend: Callable[[Iterable[str | int]], None] = self._parts.extend
        """Add texts and token ids."""

    def add(self, *parts: str | int) -> None:
        """Add texts and token ids."""
        self._parts += parts

    def add_fragment(self, ids: tuple[int, ...]) -> None:
        """Add ids that were tokenised before; they begin and end with special tokens."""
        self._parts.append(ids)

    def add_media(self, part: ImagePart | ResolvedImage | MediaPart) -> None:
        """Add a picture, or the one placeholder of media that is not there."""
        if isinstance(part, ResolvedImage):
            self._images.append(part.image)
            self._parts.append(part)
        elif isinstance(part, ImagePart):
            self.add(self._special.image)
        else:
            token_id = self._special.audio if part.kind is MediaKind.AUDIO else self._special.video
            if token_id < 0:
                msg = f"the vocabulary has no token for {part.kind}"
                raise VocabularyError(msg)
            self.add(token_id)

    @property
    def position(self) -> int:
        """Where the next part will stand."""
        return len(self._parts)

    def build(self, state: PromptState, open_call: OpenCall | None = None, *, begun_at: int | None = None) -> Prompt:
        """Make the prompt of everything that was added; all its texts are tokenised at once.

        Args:
            state: where it ends.
            open_call: the call that it leaves open.
            begun_at: position of the first part of an answer that has begun.

        Raises:
            ContextError: its texts are far too long.
        """
        segments = self._joined(self._parts)
        ids = self._ids(segments)
        begun = 0 if begun_at is None else self._begun(ids, self._parts[begun_at:], state)
        images = tuple(self._images)
        return Prompt(tuple(ids), images, state, tuple(segments), self._tokenizer, open_call, begun)

    def _begun(self, ids: list[int], parts: list[Segment], state: PromptState) -> int | None:
        """Return how many of the last ids the parts make; None where that cannot be told, or is no answer's text."""
        tail = self._ids(self._joined(parts))
        if state is PromptState.OPEN_THOUGHT:
            return 0 if tail[0] == self._special.channel_open else None
        if self._special.image in tail or ids[len(ids) - len(tail) :] != tail:
            return None
        return len(tail)

    def _ids(self, segments: list[Segment]) -> list[int]:
        texts = [segment for segment in segments if type(segment) is str]
        check_length(sum(map(len, texts)), self._tokenizer, self._context_tokens)
        encoded = iter(self._tokenizer.encode_all(texts))
        ids: list[int] = []
        for segment in segments:
            kind = type(segment)
            if kind is int:
                ids.append(segment)  # type: ignore[arg-type] # mypy does not narrow by type()
            elif kind is str:
                ids += next(encoded)
            elif kind is tuple:
                ids += segment  # type: ignore[arg-type]
            else:
                ids += self._image_ids(segment)  # type: ignore[arg-type]
        return ids

    @staticmethod
    def _joined(parts: list[Segment]) -> list[Segment]:
        """Return parts with neighbouring texts joined."""
        joined: list[Segment] = []
        text = ""
        for part in parts:
            if type(part) is str:
                text += part
            else:
                if text:
                    joined.append(text)
                    text = ""
                joined.append(part)
        if text:
            joined.append(text)
        return joined

    def _image_ids(self, part: ResolvedImage) -> tuple[int, ...]:
        """Return the places of a picture, between their two markers."""
        special = self._special
        return (special.image_open, *(special.image,) * part.soft_tokens, special.image_close)
