"""What a request must satisfy before it may take a place in the queue, whatever the core.

Pure checks against the engine's limits; every failure names the field. Nothing behind this point meets bad input.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engine.errors import ContextOverflowError, InvalidRequestError, UnknownAdapterError
from engine.images import ImageRun, check_image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.core import EngineLimits, EngineRequest, Sampling

MAX_LOGPROBS = 20
MAX_SEED = 2**64
MIN_REPETITION_PENALTY = 0.001
"""Logits are divided by it: by much less, they would overflow."""
MAX_NAME = 128
"""So much of an unknown name is shown."""


def check_request(request: EngineRequest, limits: EngineLimits, image_token_id: int | None) -> tuple[ImageRun, ...]:
    """Check a request.

    Returns:
        The places of its images in the prompt, in order.

    Raises:
        ContextOverflowError: the prompt leaves no room for one more token.
        InvalidImageError: an image has a wrong size.
        UnknownAdapterError: the engine has no adapter of that name.
        InvalidRequestError: anything else that is out of range.
    """
    check_adapter(request, limits)
    if not request.prompt_ids:
        message = "prompt_ids is empty"
        raise InvalidRequestError(message)
    if len(request.prompt_ids) >= limits.context_tokens:
        raise ContextOverflowError(len(request.prompt_ids), limits.context_tokens)
    _check_ids("prompt_ids", request.prompt_ids, limits.vocab_size)
    _check_ids("stop_ids", request.stop_ids, limits.vocab_size)
    _check_ids("sampling.logit_bias", request.sampling.logit_bias, limits.vocab_size)
    _check(request.max_tokens >= 1, "max_tokens", "is below 1")
    _check(request.min_tokens >= 0, "min_tokens", "is negative")
    _check(0 <= request.grammar_begun <= len(request.prompt_ids), "grammar_begun", "is not within the prompt")
    _check(request.logprobs is None or 0 <= request.logprobs <= MAX_LOGPROBS, "logprobs", f"is not 0 to {MAX_LOGPROBS}")
    _check_sampling(request.sampling)
    for index, image in enumerate(request.images):
        check_image(image, index)
    return _image_runs(request, image_token_id, vision=limits.vision)


def check_adapter(request: EngineRequest, limits: EngineLimits) -> None:
    """Check that the engine has the adapter of a request.

    Raises:
        UnknownAdapterError: it has not.
    """
    if request.adapter is not None and request.adapter not in limits.adapters:
        message = f"the model `{request.adapter[:MAX_NAME]}` does not exist"
        raise UnknownAdapterError(message)


def _check(condition: bool, field: str, problem: str) -> None:  # noqa: FBT001 - the condition is the subject
    if not condition:
        message = f"{field} {problem}"
        raise InvalidRequestError(message)


def _check_ids(field: str, ids: Iterable[int], vocab_size: int) -> None:
    for token_id in ids:
        if not 0 <= token_id < vocab_size:
            message = f"{field} holds {token_id}; ids of this model are 0 to {vocab_size - 1}"
            raise InvalidRequestError(message)


def _check_sampling(sampling: Sampling) -> None:
    for name in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
        _check(math.isfinite(getattr(sampling, name)), f"sampling.{name}", "is not a finite number")
    _check(sampling.temperature >= 0, "sampling.temperature", "is negative")
    _check(sampling.top_k >= 0, "sampling.top_k", "is negative")
    _check(0 < sampling.top_p <= 1, "sampling.top_p", "is not above 0 and at most 1")
    _check(0 <= sampling.min_p <= 1, "sampling.min_p", "is not between 0 and 1")
    _check(
        sampling.repetition_penalty >= MIN_REPETITION_PENALTY,
        "sampling.repetition_penalty",
        f"is below {MIN_REPETITION_PENALTY}",
    )
    _check(sampling.seed is None or 0 <= sampling.seed < MAX_SEED, "sampling.seed", "does not fit 64 bits")
    _check(not any(math.isnan(v) for v in sampling.logit_bias.values()), "sampling.logit_bias", "holds no number")


def _image_runs(request: EngineRequest, image_token_id: int | None, *, vision: bool) -> tuple[ImageRun, ...]:
    if request.images and not vision:
        message = "images are given, but this engine serves text only"
        raise InvalidRequestError(message)
    found = _runs_of(request.prompt_ids, image_token_id)
    runs: list[ImageRun] = []
    expected = [image.soft_tokens for image in request.images]
    # Two pictures may stand side by side: a run is then as long as both together.
    for start, length in found:
        place = start
        while place < start + length and len(runs) < len(expected):
            runs.append(ImageRun(place, expected[len(runs)]))
            place += runs[-1].count
        if place != start + length:
            break
    if len(runs) != len(expected) or sum(run.count for run in runs) != sum(length for _, length in found):
        message = (
            f"prompt_ids hold image-token runs of {[length for _, length in found]} tokens, "
            f"but the images need {expected}"
        )
        raise InvalidRequestError(message)
    return tuple(runs)


def _runs_of(ids: tuple[int, ...], wanted: int | None) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    start = -1
    for place, token_id in enumerate((*ids, -1)):
        if token_id == wanted and start < 0:
            start = place
        elif token_id != wanted and start >= 0:
            runs.append((start, place - start))
            start = -1
    return runs
