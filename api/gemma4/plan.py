"""What the engine is asked to do for a request and its prompt: sampling, ends, grammar and limits.

The model's own defaults stand where the caller says nothing. Nothing is changed silently: a limit that the caller
gave and that does not fit is an error with the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from api.chat.errors import ChatError
from api.chat.request import ChatRequest, SamplingOptions, ToolMode
from api.gemma4.answer_grammar import answer_grammar
from api.gemma4.errors import ContextError
from api.gemma4.prompt import Prompt
from api.gemma4.stop import StopTexts
from api.gemma4.tokenizer import Gemma4Tokenizer
from engine.core import EngineRequest, Sampling

FORBIDDEN = -100.0
"""A logit bias that no token survives: Gemma 4 caps its logits at 30."""

_LEAST = 1e-6
"""Less temperature is none, and less of the nucleus is one token."""

_DEFAULTS = Sampling(temperature=1.0, top_k=64, top_p=0.95)
"""From the checkpoints' own generation_config.json."""


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """Everything that one request asks of the engine besides the prompt, and of the parser.

    ``extra_stop_ids`` are the caller's that are to be left out of the text. ``tool_calls`` tells the parser whether
    calls are calls. ``adapter`` is the LoRA adapter that answers, None the model itself.
    """

    sampling: Sampling
    max_tokens: int
    stop_ids: tuple[int, ...]
    grammar: str | None = None
    grammar_begun: int = 0
    min_tokens: int = 0
    ignore_stop_ids: bool = False
    logprobs: int | None = None
    priority: int = 0
    cache_salt: str = ""
    stop: StopTexts = field(default_factory=StopTexts)
    extra_stop_ids: tuple[int, ...] = ()
    tool_calls: bool = True
    adapter: str | None = None

    def engine_request(self, prompt: Prompt, request_id: str, index: int = 0) -> EngineRequest:
        """Make the engine's request for the ``index``-th of ``n`` answers; each has a seed of its own."""
        sampling = self.sampling
        if sampling.seed is not None and index:
            sampling = replace(sampling, seed=(sampling.seed + index) % 2**32)
        return EngineRequest(
            request_id=request_id,
            prompt_ids=prompt.ids,
            images=prompt.images,
            max_tokens=self.max_tokens,
            sampling=sampling,
            stop_ids=self.stop_ids,
            grammar=self.grammar,
            grammar_begun=self.grammar_begun,
            logprobs=self.logprobs,
            min_tokens=self.min_tokens,
            ignore_stop_ids=self.ignore_stop_ids,
            priority=self.priority,
            cache_salt=self.cache_salt,
            adapter=self.adapter,
        )


def make_plan(
    request: ChatRequest, prompt: Prompt, tokenizer: Gemma4Tokenizer, *, context_tokens: int
) -> GenerationPlan:
    """Plan the generation.

    Raises:
        ChatError: when it does not fit the context, or constraints cannot be honoured together.
    """
    limits = request.limits
    max_tokens = _max_tokens(request, len(prompt.ids), context_tokens)
    grammar = _grammar(request, prompt, tokenizer, max_tokens)
    if grammar is not None and limits.ignore_eos:
        raise ChatError("ignore_eos cannot be combined with a constrained answer", param="ignore_eos")
    calls_barred = request.tool_choice.mode is ToolMode.NONE and bool(request.tools)
    special = tokenizer.special
    barred = (special.call_open,) if calls_barred else ()
    return GenerationPlan(
        sampling=_sampling(request.sampling, barred, tokenizer.size),
        max_tokens=max_tokens,
        stop_ids=_stop_ids(request, tokenizer),
        grammar=grammar,
        grammar_begun=(prompt.begun or 0) if grammar is not None else 0,
        min_tokens=min(limits.min_tokens, max_tokens),
        ignore_stop_ids=limits.ignore_eos,
        logprobs=request.logprobs,
        priority=request.priority,
        cache_salt=request.cache_salt,
        stop=StopTexts(limits.stop, shown=limits.include_stop),
        extra_stop_ids=() if limits.include_stop else tuple(set(limits.stop_token_ids) - set(special.stop_ids)),
        tool_calls=not calls_barred,
    )


def _stop_ids(request: ChatRequest, tokenizer: Gemma4Tokenizer) -> tuple[int, ...]:
    """Return the ids that end the answer; where only certain ids may be drawn, those of them."""
    given = request.limits.stop_token_ids
    for token_id in given:
        if not 0 <= token_id < tokenizer.size:
            raise ChatError(f"{token_id} is not a token of this model", param="stop_token_ids")
    ids = tuple(dict.fromkeys((*tokenizer.special.stop_ids, *given)))
    allowed = request.sampling.allowed_token_ids
    return ids if allowed is None else tuple(token_id for token_id in ids if token_id in allowed)


def _max_tokens(request: ChatRequest, prompt_tokens: int, context_tokens: int) -> int:
    """Return how many tokens may be drawn."""
    room = context_tokens - prompt_tokens
    asked = request.limits.max_tokens
    if room < 1:
        raise ContextError.of_prompt(str(prompt_tokens), context_tokens)
    if asked is None:
        return room
    if asked > room:
        raise ContextError(
            f"the prompt has {prompt_tokens} tokens and {asked} were asked for the answer; "
            f"together they exceed the context of {context_tokens} tokens",
            param="max_tokens",
        )
    return asked


def _grammar(request: ChatRequest, prompt: Prompt, tokenizer: Gemma4Tokenizer, max_tokens: int) -> str | None:
    """Return the answer's grammar; a budget that cannot be reached is none."""
    budget = request.thinking.budget
    if budget is not None and budget >= max_tokens:
        budget = None
    grammar = answer_grammar(request, prompt.state, tokenizer, budget=budget)
    if grammar is not None and prompt.begun is None:
        raise ChatError(
            "a message that has begun with pictures, or with text before a thought, cannot be continued under "
            "anything that constrains the answer",
            param="continue_final_message",
        )
    return grammar


def _sampling(options: SamplingOptions, barred: tuple[int, ...], size: int) -> Sampling:
    """Fill in the model's defaults, and bar tokens that must not be drawn."""
    for token_id in options.logit_bias:
        if not 0 <= token_id < size:
            raise ChatError(f"{token_id} is not a token of this model", param="logit_bias")
    given = {
        name: value
        for name in (
            *("temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
            *("presence_penalty", "frequency_penalty", "seed"),
        )
        if (value := getattr(options, name)) is not None
    }
    # The same to the model, and within the 32 bits that engines take: no top_k is more than all, and hardly any
    # temperature or top_p draws the most likely token.
    if "top_k" in given:
        given["top_k"] = min(given["top_k"], size)
    if given.get("temperature", 1.0) < _LEAST:
        given["temperature"] = 0.0
    if "top_p" in given:
        given["top_p"] = max(given["top_p"], _LEAST)
    bias = {**options.logit_bias, **dict.fromkeys(barred, FORBIDDEN)}
    return replace(_DEFAULTS, **given, logit_bias=bias)
