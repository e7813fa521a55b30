"""Prompts with pictures: a text that makes the library lay out the pictures just where our ids have them.

TensorRT-LLM takes pictures only together with text, which its processor expands and tokenises. What a user wrote could
then turn into markers, and the ids would be the library's. So it never sees that text: it preprocesses a skeleton of
padding tokens and picture placeholders, of the same length, and then gets our ids in place of the skeleton's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import EngineError, EngineLoadError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.images import ImageRun

PADDING = "<pad>"
PLACEHOLDER = "<|image|>"
"""Becomes a marker, the picture's soft tokens, and another marker."""
PROBE_TOKENS = 3
BUDGETS = (70, 140, 280, 560, 1120)
"""Values of ``max_soft_tokens`` that Gemma 4's image processor knows."""


@dataclass(frozen=True, slots=True)
class Frame:
    """How many ids the library's tokenizer adds before and after any text."""

    before: int
    after: int


def probe_text() -> str:
    """Return a text whose ids tell the frame."""
    return PADDING * PROBE_TOKENS


def frame_of(probe_ids: Sequence[int], pad_id: int) -> Frame:
    """Return the frame that the probe's ids show.

    Raises:
        EngineLoadError: padding tokens do not stay themselves in this tokenizer.
    """
    places = [place for place, token_id in enumerate(probe_ids) if token_id == pad_id]
    if len(places) != PROBE_TOKENS or places[-1] - places[0] != PROBE_TOKENS - 1:
        message = f"the checkpoint's tokenizer turns {probe_text()!r} into {list(probe_ids)}; pictures cannot be placed"
        raise EngineLoadError(message)
    return Frame(places[0], len(probe_ids) - places[-1] - 1)


def skeleton(prompt_tokens: int, runs: Sequence[ImageRun], frame: Frame) -> str:
    """Return a text that the library turns into as many ids, with image tokens in the same places.

    Raises:
        InvalidRequestError: a picture does not stand between two ids that belong to it alone.
    """
    parts: list[str] = []
    place = frame.before
    for index, run in enumerate(runs):
        gap = run.start - 1 - place
        _check_room(gap, index)
        parts += [PADDING * gap, PLACEHOLDER]
        place = run.start + run.count + 1
    gap = prompt_tokens - frame.after - place
    _check_room(gap, len(runs) - 1)
    return "".join([*parts, PADDING * gap])


def _check_room(gap: int, index: int) -> None:
    if gap < 0:
        message = f"images[{index}]: TensorRT-LLM needs a marker before and after each picture's place in prompt_ids"
        raise InvalidRequestError(message)


def check_layout(found_ids: Sequence[int], prompt_ids: Sequence[int], image_id: int) -> None:
    """Make sure that the library has laid the pictures out as the prompt has them.

    Raises:
        EngineError: it has not, so its picture data do not belong to these ids.
    """
    found = [place for place, token_id in enumerate(found_ids) if token_id == image_id]
    wanted = [place for place, token_id in enumerate(prompt_ids) if token_id == image_id]
    if len(found_ids) != len(prompt_ids) or found != wanted:
        message = (
            f"TensorRT-LLM lays {len(found)} image tokens out among {len(found_ids)} ids; "
            f"the prompt has {len(wanted)} among {len(prompt_ids)}"
        )
        raise EngineError(message)


def budget_of(soft_tokens: int) -> int:
    """Return the smallest budget of the image processor that holds a picture of so many soft tokens."""
    return next((budget for budget in BUDGETS if budget >= soft_tokens), BUDGETS[-1])
