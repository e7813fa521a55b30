"""What of a request becomes which argument of vLLM's ``SamplingParams``.

Pure: names and values come out; ``engine.vllm.library`` hands them over. Stop ids are the request's and no others, so
``ignore_eos`` is always set; the end token that a finished grammar forces is one of them where there is a grammar.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from engine.errors import InvalidRequestError

if TYPE_CHECKING:
    from engine.core import EngineRequest

MAX_TEMPERATURE: Final = 2.0
MAX_PENALTY: Final = 2.0
"""vLLM refuses more; the API offers no more."""
DECISIVE: Final = 1e4
"""A larger bias decides no more surely: logits of Gemma 4 are capped at 30. Infinite ones would make NaN."""
SEED_BITS: Final = 63
BEGUN: Final = "grammar_begun"
"""Key in ``extra_args``: the prompt's last ids that the grammar covers; read by ``engine.vllm.scheduler``."""


def check_limits(request: EngineRequest, *, drafts: bool = False) -> None:
    """Refuse values that are fine for the protocol but not for vLLM; ``drafts`` as for ``sampling_arguments``.

    Raises:
        InvalidRequestError: the message names the field and what vLLM takes.
    """
    sampling = request.sampling
    if sampling.temperature > MAX_TEMPERATURE:
        message = f"sampling.temperature is {sampling.temperature:g}; vLLM takes 0 to {MAX_TEMPERATURE:g}"
        raise InvalidRequestError(message)
    for name in ("presence_penalty", "frequency_penalty"):
        value = getattr(sampling, name)
        if abs(value) > MAX_PENALTY:
            message = f"sampling.{name} is {value:g}; vLLM takes -{MAX_PENALTY:g} to {MAX_PENALTY:g}"
            raise InvalidRequestError(message)
    for name in ("min_p", "logit_bias") if drafts else ():
        if getattr(sampling, name):
            message = f"sampling.{name} is given; vLLM does not take it beside a draft model"
            raise InvalidRequestError(message)


def sampling_arguments(request: EngineRequest, end_id: int, *, drafts: bool = False) -> dict[str, Any]:
    """Return the arguments without the grammar.

    Args:
        request: a checked request.
        end_id: the end token that vLLM draws when a grammar has ended.
        drafts: whether a draft model proposes ids; vLLM takes no bias then.
    """
    sampling = request.sampling
    has_grammar = request.grammar is not None
    arguments: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        # torch's generators take signed numbers; another number for a large seed is as repeatable.
        "seed": None if sampling.seed is None else sampling.seed % 2**SEED_BITS,
        # A finished grammar forces the end token, which is then dropped: it needs a place of its own.
        "max_tokens": request.max_tokens + (1 if has_grammar else 0),
        "min_tokens": _min_tokens(request),
        "stop_token_ids": sorted({*request.stop_ids, end_id} if has_grammar else request.stop_ids),
        "ignore_eos": True,
        "logprobs": request.logprobs,
        "detokenize": False,
        "logit_bias": _bias(request, None if drafts else end_id) or None,
    }
    if request.grammar_begun and has_grammar:
        arguments["extra_args"] = {BEGUN: list(request.prompt_ids[-request.grammar_begun :])}
    return arguments


def _min_tokens(request: EngineRequest) -> int:
    if request.ignore_stop_ids and request.grammar is None:
        # vLLM rules stop ids out until so many ids are drawn: to the last one, they never come.
        return request.max_tokens
    return min(request.min_tokens, request.max_tokens)


def _bias(request: EngineRequest, end_id: int | None) -> dict[int, float]:
    bias = {token_id: _finite(value) for token_id, value in request.sampling.logit_bias.items()}
    if request.grammar is None or end_id is None:
        return bias
    if end_id not in request.stop_ids or request.ignore_stop_ids:
        # A grammar that may end but need not goes on, as it does in a core that knows no end token; where nothing else
        # is left to draw, no bias keeps vLLM from it.
        bias[end_id] = -DECISIVE
    return bias


def _finite(value: float) -> float:
    return math.copysign(min(abs(value), DECISIVE), value)
