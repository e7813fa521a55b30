"""One request's ``SamplingParams``: each field of ours as the library's, every neutral value spelled out.

Pure: the values are plain data, and ``engine.tensorrt_llm.library`` makes the library's objects of them. Nothing may be
left None that the checkpoint's ``generation_config.json`` could fill in (``top_k``, ``top_p``, ``temperature``,
``min_p`` and ``repetition_penalty`` are, since 1.3.0rc26).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import InvalidRequestError
from engine.tensorrt_llm.grammars import ended_by, no_stop_before

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.core import EngineLimits, EngineRequest, Sampling
    from engine.tensorrt_llm.checkpoint import Checkpoint

LARGEST_BIAS = 1e9
"""Stands for infinity: a row of nothing but minus infinity, as where a grammar leaves one forbidden id, has no draw."""
SEED_BITS = 63


def refuse_unsupported(request: EngineRequest) -> None:
    """Refuse by name what this core cannot do.

    Raises:
        InvalidRequestError: the grammar covers a part of the prompt, or stands beside ``min_tokens``.
    """
    if request.grammar is None:
        return
    if request.grammar_begun:
        message = (
            "grammar_begun: TensorRT-LLM's guided decoding starts with the first drawn token, so an answer that has "
            "begun in the prompt cannot be held to a grammar"
        )
        raise InvalidRequestError(message)
    if request.min_tokens and request.stop_ids and not request.ignore_stop_ids:
        message = "min_tokens: TensorRT-LLM cannot hold a sequence to a grammar and to a least number of tokens at once"
        raise InvalidRequestError(message)


def sampling_arguments(request: EngineRequest, checkpoint: Checkpoint, limits: EngineLimits) -> dict[str, Any]:
    """Return the arguments of ``SamplingParams``; ``guided_decoding`` is Lark text, ``embedding_bias`` an array."""
    return {
        # The library's own default is 32. Prompt and completion share the context.
        "max_tokens": min(request.max_tokens, limits.context_tokens - len(request.prompt_ids)),
        **_ends(request, checkpoint),
        **_draw(request.sampling, len(request.prompt_ids)),
        "embedding_bias": _bias(request, limits.vocab_size),
        "guided_decoding": _guide(request, limits.vocab_size),
        # 0 gives the drawn id's own log-probability; None gives nothing. The mode's default is raw logits.
        "logprobs": request.logprobs,
        # The library turns ids to text beside every response unless told not to; nobody here reads it.
        "detokenize": False,
        # A prompt holds its own <bos>.
        "add_special_tokens": False,
        "n": 1,
    }


def _ends(request: EngineRequest, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what ends the sequence.

    A missing ``end_id`` would be taken from the tokenizer and a list of more ends from the generation config, so it is
    set and switched off (``ignore_eos``). Then only ``stop_token_ids`` end a sequence, and they are reported among its
    ids only with ``include_stop_str_in_output``. ``min_tokens`` is not used: it forbids ``end_id`` alone, and counts
    the prompt.
    """
    stops = set() if request.ignore_stop_ids else set(request.stop_ids)
    if request.grammar is not None:
        # All that the library's matcher allows after a grammar's end, whatever the request says.
        stops.add(checkpoint.end_id)
    return {
        "end_id": checkpoint.end_id,
        "pad_id": checkpoint.pad_id,
        "ignore_eos": True,
        "stop_token_ids": sorted(stops) or None,
        "include_stop_str_in_output": True,
    }


def _draw(sampling: Sampling, prompt_tokens: int) -> dict[str, Any]:
    greedy = sampling.temperature == 0.0
    return {
        "temperature": sampling.temperature,
        # Greedy is temperature 0 or top_k 1; both, so that no version draws.
        "top_k": 1 if greedy else sampling.top_k,
        "top_p": 1.0 if greedy else sampling.top_p,
        "min_p": 0.0 if greedy else sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        # Presence and frequency count drawn ids only, repetition the prompt's too.
        "prompt_ignore_length": prompt_tokens,
        # Without a seed the sampler falls back to one that is the same in every process.
        "seed": None if greedy else _seed(sampling.seed),
    }


def _seed(seed: int | None) -> int:
    return secrets.randbits(SEED_BITS) if seed is None else seed


def _bias(request: EngineRequest, vocab_size: int) -> NDArray[np.float32] | None:
    """Return what is added to the logits [vocab_size], or None. One such array crosses to the workers per request."""
    wanted = dict(request.sampling.logit_bias)
    if request.ignore_stop_ids:
        wanted |= dict.fromkeys(request.stop_ids, -LARGEST_BIAS)
    if not wanted:
        return None
    bias = np.zeros(vocab_size, dtype=np.float32)
    bias[list(wanted)] = np.clip(list(wanted.values()), -LARGEST_BIAS, LARGEST_BIAS)
    return bias


def _guide(request: EngineRequest, vocab_size: int) -> str | None:
    stops = () if request.ignore_stop_ids else request.stop_ids
    if request.grammar is not None:
        return ended_by(request.grammar, stops) if stops else request.grammar
    if request.min_tokens and stops:
        return no_stop_before(request.min_tokens, stops, vocab_size)
    return None
