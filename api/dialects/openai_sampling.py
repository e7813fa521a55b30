"""Sampling and output limits of OpenAI requests, with the names that vLLM, llama.cpp and NIM added."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from api.chat.request import OutputLimits, SamplingOptions
from api.dialects.openai_format import GuidedFields
from api.dialects.schema import Fields, agree
from api.errors import BadRequestError

MAX_STOPS = 16
MAX_STOP_LENGTH = 1000
MAX_TOP_LOGPROBS = 20
MAX_BAD_WORDS = 128
_MAX_BIAS = 100.0
_SEED_LIMIT = 2**63
_SEEDS = 2**64
"""Engines take unsigned seeds; negative ones wrap around."""

TokenId = Annotated[int, Field(ge=0)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
TopK = Annotated[int, Field(ge=-1)]
Repetition = Annotated[float, Field(ge=0.01, le=10.0)]


def _stop_form(value: object) -> str | None:
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else None


class NvExt(GuidedFields):
    """The ``nvext`` object of NIM 1.x."""

    top_k: TopK | None = None
    repetition_penalty: Repetition | None = None
    ignore_eos: bool | None = None
    max_thinking_tokens: int | None = Field(default=None, ge=-1)


class SamplingFields(Fields):
    """How tokens are drawn."""

    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    top_k: TopK | None = None
    min_p: float | None = Field(default=None, ge=0.0, le=1.0)
    presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    repetition_penalty: Repetition | None = None
    repeat_penalty: Repetition | None = None
    seed: int | None = Field(default=None, ge=-_SEED_LIMIT, lt=_SEED_LIMIT)
    logit_bias: dict[str, float] | None = None
    bad_words: list[StopText] | None = Field(default=None, max_length=MAX_BAD_WORDS)
    allowed_token_ids: list[TokenId] | None = Field(default=None, min_length=1)

    def to_sampling(self, nvext: NvExt) -> SamplingOptions:
        """Translate.

        Raises:
            BadRequestError: when two names of one thing differ, or ``logit_bias`` is no map of ids.
        """
        top_k = agree(("top_k", self.top_k), ("nvext.top_k", nvext.top_k))
        return SamplingOptions(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=0 if top_k == -1 else top_k,
            min_p=self.min_p,
            repetition_penalty=agree(
                ("repetition_penalty", self.repetition_penalty),
                ("repeat_penalty", self.repeat_penalty),
                ("nvext.repetition_penalty", nvext.repetition_penalty),
            ),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=None if self.seed is None else self.seed % _SEEDS,
            logit_bias=_to_bias(self.logit_bias or {}),
            bad_words=tuple(dict.fromkeys(self.bad_words or ())),
            allowed_token_ids=None if self.allowed_token_ids is None else tuple(sorted(set(self.allowed_token_ids))),
        )


class LimitFields(Fields):
    """Where an answer ends."""

    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    min_tokens: int | None = Field(default=None, ge=0)
    stop: (
        Annotated[
            Annotated[StopText, Tag("text")] | Annotated[list[StopText], Tag("list"), Field(max_length=MAX_STOPS)],
            Discriminator(
                _stop_form,
                custom_error_type="stop_type",
                custom_error_message="Input should be a string or a list of strings",
            ),
        ]
        | None
    ) = None
    stop_token_ids: list[TokenId] | None = Field(default=None, max_length=128)
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None

    def to_limits(self, nvext: NvExt) -> OutputLimits:
        """Translate.

        Raises:
            BadRequestError: when two fields contradict each other.
        """
        max_tokens = agree(("max_completion_tokens", self.max_completion_tokens), ("max_tokens", self.max_tokens))
        min_tokens = self.min_tokens or 0
        if max_tokens is not None and min_tokens > max_tokens:
            raise BadRequestError("`min_tokens` is larger than `max_tokens`.", param="min_tokens")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return OutputLimits(
            max_tokens=max_tokens,
            min_tokens=min_tokens,
            stop=tuple(dict.fromkeys(stop)),
            stop_token_ids=tuple(dict.fromkeys(self.stop_token_ids or ())),
            include_stop=bool(self.include_stop_str_in_output),
            ignore_eos=bool(agree(("ignore_eos", self.ignore_eos), ("nvext.ignore_eos", nvext.ignore_eos))),
        )


class LogprobFields(Fields):
    """Which probabilities are returned."""

    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    def to_logprobs(self) -> int | None:
        """Return how many rivals to report beside each token; None reports nothing.

        Raises:
            BadRequestError: when rivals are asked for without ``logprobs``.
        """
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise BadRequestError("`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")
        return None


def _to_bias(bias: dict[str, float]) -> dict[int, float]:
    """Return the biases by token id."""
    by_id: dict[int, float] = {}
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit()):
            raise BadRequestError("The keys of `logit_bias` must be token ids.", param="logit_bias")
        if not -_MAX_BIAS <= value <= _MAX_BIAS:
            raise BadRequestError(
                "The values of `logit_bias` must lie between -100 and 100.", param=f"logit_bias.{key[:20]}"
            )
        by_id[int(key[:12])] = value
    return by_id
