"""Requests that cannot run, on the core itself and through gRPC: the exact error class, before the first delta."""

from __future__ import annotations

import math

import pytest

from engine.core import Sampling
from engine.errors import ContextOverflowError, InvalidRequestError, UnknownAdapterError


def test_an_over_long_prompt_names_both_numbers(run, tools, vocabulary):
    """A prompt that leaves no room for one id tells its length and the context."""
    with pytest.raises(ContextOverflowError) as caught:
        run(lambda engine: tools.collect(engine, tools.request(vocabulary.prompt(2048), 1)))
    assert (caught.value.prompt_tokens, caught.value.context_tokens) == (2048, 2048)


def test_an_adapter_that_is_not_there_is_unknown(run, tools, vocabulary):
    """The error is one of its own: to a client it is a model that does not exist."""
    with pytest.raises(UnknownAdapterError, match="the model `poet` does not exist"):
        run(lambda engine: tools.collect(engine, tools.request(vocabulary.prompt(4), 1, adapter="poet")))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prompt_ids": ()}, "prompt_ids"),
        ({"prompt_ids": (2, -1)}, "prompt_ids"),
        ({"prompt_ids": (2, 2**31 - 1)}, "prompt_ids"),
        ({"stop_ids": (-5,)}, "stop_ids"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"sampling": Sampling(temperature=-1.0)}, "temperature"),
        ({"sampling": Sampling(temperature=math.nan)}, "temperature"),
        ({"sampling": Sampling(top_k=-1)}, "top_k"),
        ({"sampling": Sampling(top_p=0.0)}, "top_p"),
        ({"sampling": Sampling(top_p=1.5)}, "top_p"),
        ({"sampling": Sampling(min_p=2.0)}, "min_p"),
        ({"sampling": Sampling(repetition_penalty=0.0)}, "repetition_penalty"),
        ({"sampling": Sampling(repetition_penalty=1e-40)}, "repetition_penalty"),
        ({"sampling": Sampling(presence_penalty=math.inf)}, "presence_penalty"),
        ({"sampling": Sampling(logit_bias={-3: 1.0})}, "logit_bias"),
        ({"sampling": Sampling(logit_bias={3: math.nan})}, "logit_bias"),
    ],
)
def test_a_value_out_of_range_is_named(run, tools, vocabulary, fields, named):
    """The message names the field, and the engine serves the next request."""
    fields = {"prompt_ids": vocabulary.prompt(4), "max_tokens": 4} | fields

    async def body(engine):
        with pytest.raises(InvalidRequestError, match=named) as caught:
            await tools.collect(engine, tools.request(**fields))
        assert type(caught.value) is InvalidRequestError
        return await tools.collect(engine, tools.request(vocabulary.prompt(4), 2))

    assert len(run(body).token_ids) == 2
