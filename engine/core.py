"""The engine protocol: token ids in, token-id deltas out, the same for every inference engine.

This module owns the vocabulary that cores, the wire and the client share. It knows nothing of chat messages, HTTP or
processes. A core receives prompts whose images are already decoded and sized, and whose soft-token places are already
written into the ids, so no core ever has to tokenise or guess a position.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from engine.errors import EngineError


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    """A stop id was sampled, or the grammar reached its end."""
    LENGTH = "length"
    """``max_tokens`` or the context was used up."""
    ABORT = "abort"
    """The consumer went away, or asked for it."""


@dataclass(frozen=True, slots=True)
class Image:
    """One decoded picture, already resized for the vision tower.

    ``rgb`` holds ``height * width * 3`` bytes, row by row, perhaps in shared memory; both sides are multiples of 48
    pixels, so that ``soft_tokens == (height // 48) * (width // 48)``. The n-th image fills the n-th run of
    ``soft_tokens`` consecutive image-token ids in ``EngineRequest.prompt_ids``.
    """

    rgb: bytes | memoryview
    width: int
    height: int

    @property
    def soft_tokens(self) -> int:
        """Number of positions that this image takes in the prompt."""
        return (self.height // 48) * (self.width // 48)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next id is drawn. The neutral value of each field switches its stage off.

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1, ``min_p`` 0, ``repetition_penalty`` 1 and the two additive
    penalties 0 are off. ``seed`` None draws a fresh seed; the same seed and prompt give the same ids.
    """

    temperature: float = 1.0
    top_k: int = 64
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One sequence to generate.

    ``stop_ids`` end the sequence and are reported in the last delta's ids. ``grammar`` is llguidance Lark text that
    refers to special tokens by id. ``logprobs`` None means none, 0 means the chosen id only, n the n most likely too
    (at most 20). ``grammar_begun`` is how many of the prompt's last ids the grammar covers: the answer has begun with
    them. ``min_tokens`` forbids stop ids until so many ids were drawn. ``ignore_stop_ids`` never draws them.
    ``adapter`` is one of ``EngineLimits.adapters``; None is the model itself.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    max_tokens: int
    images: tuple[Image, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: tuple[int, ...] = ()
    grammar: str | None = None
    grammar_begun: int = 0
    logprobs: int | None = None
    min_tokens: int = 0
    ignore_stop_ids: bool = False
    priority: int = 0
    cache_salt: str = ""
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of one drawn id before sampling filters, and of its most likely rivals."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a sequence: prompt (image places included), of these found in the prefix cache, and drawn."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class EngineDelta:
    """What is new since the previous delta of the same sequence. Only the last one has ``finish_reason``.

    The last one also has the final ``usage``; the first with ids has one as of its first id, so that a consumer that
    ends the sequence itself knows what the prefix cache held. ``logprobs`` is empty, or as long as ``token_ids``.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


def join_deltas(deltas: Sequence[EngineDelta]) -> EngineDelta:
    """Return one delta that says what these, in order and at least one, say of the same sequence."""
    if len(deltas) == 1:
        return deltas[0]
    usages = [delta.usage for delta in deltas if delta.usage is not None]
    return EngineDelta(
        tuple(token_id for delta in deltas for token_id in delta.token_ids),
        tuple(entry for delta in deltas for entry in delta.logprobs),
        deltas[-1].finish_reason,
        usages[-1] if usages else None,
    )


class Receiver(Protocol):
    """Takes what is drawn for one sequence as plain calls in the event loop, so that a token costs no task switch.

    After a delta with a finish reason, or after ``failed``, nothing comes. The methods return soon and never raise.
    """

    def ids(self, token_ids: tuple[int, ...]) -> None:
        """Take ids about which there is nothing else to say."""
        ...

    def delta(self, delta: EngineDelta) -> None:
        """Take a delta."""
        ...

    def failed(self, error: EngineError) -> None:
        """Learn that the sequence has ended with an error."""
        ...


class Running(Protocol):
    """A sequence that was started for a receiver."""

    def close(self) -> None:
        """End it if it still runs, and let go of the receiver. Must be called once, whatever happened."""
        ...


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What this engine can take. ``context_tokens`` bounds prompt plus completion of one sequence.

    ``adapters`` are the names of the LoRA adapters that it has at this moment; the rest stays as it is.
    """

    context_tokens: int
    max_sequences: int
    max_queued: int
    vocab_size: int
    vision: bool
    grammar: bool
    logprobs: bool
    core: str
    model: str
    adapters: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> EngineLimits:
        """Make limits of JSON values, in which tuples are lists; an engine of an earlier version tells no adapters.

        Raises:
            TypeError: a field is missing or unknown.
        """
        return cls(**{**fields, "adapters": tuple(fields.get("adapters", ()))})


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the start (tokens, requests) and gauges of this moment (running, queued).

    What a core cannot tell is None. Times are whole microseconds, summed over what the counter beside them counts.

    Attributes:
        kv_tokens: places for tokens in the memory of attention, all sequences together.
        kv_tokens_used: of these, places that running sequences have filled; what is only kept for reuse counts as free.
        started_total: sequences that have left the queue; ``queue_us_total`` is the time that they spent there.
        preemptions_total: how often a running sequence had to give up its memory and wait, for lack of it.
    """

    running: int
    queued: int
    requests_total: int
    prompt_tokens_total: int
    cached_tokens_total: int
    completion_tokens_total: int
    kv_tokens: int | None = None
    kv_tokens_used: int | None = None
    started_total: int | None = None
    queue_us_total: int | None = None
    grammars_total: int | None = None
    grammar_us_total: int | None = None
    images_total: int | None = None
    image_us_total: int | None = None
    preemptions_total: int | None = None


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What one engine tells of itself: nothing while it does not answer. ``counts`` are ``EngineStats`` by name."""

    address: str
    limits: EngineLimits | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


class EngineCore(Protocol):
    """One inference engine, hosted in one process by the embedded server or by Triton.

    Every method may be called from one event loop; a core owns whatever threads it needs.
    """

    def generate(self, request: EngineRequest) -> AsyncIterator[EngineDelta]:
        """Yield deltas until one carries a finish reason; closing the iterator aborts the sequence.

        Raises:
            engine.errors.EngineError: one of its subclasses, before the first delta where the request itself is at
                fault, and later only if the engine fails.
        """
        ...

    async def abort(self, request_id: str) -> None:
        """End a sequence; unknown ids are ignored."""
        ...

    async def health(self) -> bool:
        """Tell whether the engine can generate now."""
        ...

    def limits(self) -> EngineLimits:
        """Return the engine's limits."""
        ...

    def stats(self) -> EngineStats:
        """Return counters and gauges."""
        ...

    async def close(self) -> None:
        """Abort everything and free memory."""
        ...
