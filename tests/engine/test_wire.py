"""Requests, deltas, errors and limits survive the wire unchanged; what is malformed is named."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import pytest
from hypothesis import given

from engine.core import (
    EngineDelta,
    EngineLimits,
    EngineRequest,
    FinishReason,
    Image,
    Sampling,
    TokenLogprob,
    Usage,
)
from engine.errors import ERRORS_BY_CODE, ContextOverflowError, EngineError, InvalidRequestError
from engine.tensors import input_writer
from engine.triton.protocol import service_pb2
from engine.wire import (
    INPUTS,
    OUTPUTS,
    decode_delta,
    decode_error,
    decode_limits,
    decode_request,
    encode_delta,
    encode_error,
    encode_limits,
    encode_request,
)

ids = st.integers(-(2**31), 2**31 - 1)
single = st.floats(width=32, allow_nan=False)
images = st.builds(Image, st.binary(max_size=64), st.integers(0, 9999), st.integers(0, 9999))
samplings = st.builds(
    Sampling,
    temperature=single,
    top_k=ids,
    top_p=single,
    min_p=single,
    repetition_penalty=single,
    presence_penalty=single,
    frequency_penalty=single,
    seed=st.none() | st.integers(0, 2**64 - 1),
    logit_bias=st.dictionaries(ids, single, max_size=5),
)
requests = st.builds(
    EngineRequest,
    request_id=st.text(max_size=20),
    prompt_ids=st.lists(ids, max_size=30).map(tuple),
    max_tokens=ids,
    images=st.lists(images, max_size=3).map(tuple),
    sampling=samplings,
    stop_ids=st.lists(ids, max_size=5).map(tuple),
    grammar=st.none() | st.text(max_size=30),
    grammar_begun=ids,
    logprobs=st.none() | st.integers(0, 20),
    min_tokens=ids,
    ignore_stop_ids=st.booleans(),
    priority=ids,
    cache_salt=st.text(max_size=10),
    adapter=st.none() | st.text(max_size=10),
)


@st.composite
def deltas(draw) -> EngineDelta:
    token_ids = tuple(draw(st.lists(ids, max_size=8)))
    width = draw(st.integers(0, 4))
    logprobs: tuple[TokenLogprob, ...] = ()
    if draw(st.booleans()):
        top = st.lists(st.tuples(ids, single), min_size=width, max_size=width).map(tuple)
        logprobs = tuple(TokenLogprob(token_id, draw(single), draw(top)) for token_id in token_ids)
    if draw(st.booleans()):
        return EngineDelta(token_ids, logprobs)
    counts = st.integers(0, 2**31 - 1)
    usage = Usage(draw(counts), draw(counts), draw(counts))
    return EngineDelta(token_ids, logprobs, draw(st.sampled_from(FinishReason)), usage)


def over_the_wire(message):
    """Serialise and parse, as gRPC does."""
    return type(message).FromString(message.SerializeToString())


@given(requests)
def test_a_request_round_trips(request_):
    """Every field of a request arrives as it was sent."""
    assert decode_request(over_the_wire(encode_request(request_))) == request_


@given(deltas())
def test_a_delta_round_trips(delta):
    """Every field of a delta arrives as it was sent."""
    message = over_the_wire(encode_delta("r", delta))
    assert decode_delta(message) == delta
    assert message.infer_response.parameters["triton_final_response"].bool_param == (delta.finish_reason is not None)


def test_messages_use_the_declared_tensors():
    """Nothing travels under a name or type that the model's metadata does not list."""
    full = EngineRequest(
        request_id="r",
        prompt_ids=(1,),
        max_tokens=1,
        images=(Image(b"", 48, 48),),
        sampling=Sampling(seed=1, logit_bias={1: 1.0}),
        stop_ids=(1,),
        grammar="start: /a/",
        grammar_begun=1,
        logprobs=1,
        min_tokens=1,
        ignore_stop_ids=True,
        priority=1,
        cache_salt="s",
        adapter="a",
    )
    assert {t.name: t.datatype for t in encode_request(full).inputs} == {n: kind for n, (kind, _) in INPUTS.items()}
    delta = EngineDelta((1,), (TokenLogprob(1, -1.0, ((2, -2.0),)),), FinishReason.STOP, Usage(1, 1, 1))
    outputs = encode_delta("r", delta).infer_response.outputs
    assert {t.name: t.datatype for t in outputs} == {n: kind for n, (kind, _) in OUTPUTS.items()}


def test_only_ids_and_length_are_required():
    """A request of another client may leave out everything that has a default."""
    message = service_pb2.ModelInferRequest(id="x")
    writer = input_writer(message)
    writer.numbers("input_ids", "INT32", (2, 3))
    writer.numbers("request_output_len", "INT32", (7,))
    assert decode_request(message) == EngineRequest(request_id="x", prompt_ids=(2, 3), max_tokens=7)


def minimal():
    return encode_request(EngineRequest(request_id="x", prompt_ids=(1, 2), max_tokens=3))


def drop(name):
    def change(message):
        place = [t.name for t in message.inputs].index(name)
        del message.inputs[place]
        del message.raw_input_contents[place]

    return change


def replace(name, content):
    def change(message):
        message.raw_input_contents[[t.name for t in message.inputs].index(name)] = content

    return change


def retype(name, datatype):
    def change(message):
        next(t for t in message.inputs if t.name == name).datatype = datatype

    return change


def add_texts(name, *values):
    return lambda message: input_writer(message).texts(name, values)


def add_numbers(name, datatype, *values):
    return lambda message: input_writer(message).numbers(name, datatype, values)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (drop("input_ids"), "input_ids"),
        (drop("request_output_len"), "request_output_len"),
        (replace("input_ids", b"abc"), "input_ids"),
        (replace("request_output_len", b""), "request_output_len"),
        (replace("temperature", b"\0" * 8), "temperature"),
        (retype("top_k", "INT64"), "top_k"),
        (add_numbers("runtime_top_k", "INT32", 3), "runtime_top_k"),
        (add_texts("guided_decoding_guide", b"a", b"b"), "guided_decoding_guide"),
        (add_texts("cache_salt", b"\xff"), "cache_salt"),
        (add_texts("image_bytes", b"abc"), "image_sizes"),
        (add_numbers("logit_bias_ids", "INT32", 3), "logit_bias_ids"),
        (lambda m: m.raw_input_contents.append(b""), "raw contents"),
    ],
    ids=[
        "no ids",
        "no length",
        "odd bytes",
        "no value",
        "two values",
        "type",
        "unknown",
        "two texts",
        "not UTF-8",
        "no sizes",
        "no bias values",
        "extra contents",
    ],
)
def test_a_malformed_message_is_named(change, named):
    """Whatever another client gets wrong is refused with the tensor's name."""
    message = minimal()
    change(message)
    with pytest.raises(InvalidRequestError, match=named):
        decode_request(message)


@given(st.binary(max_size=40))
def test_no_bytes_tensor_breaks_the_reader(content):
    """A BYTES tensor with arbitrary contents is read or refused, never worse."""
    message = minimal()
    message.inputs.add(name="cache_salt", datatype="BYTES", shape=(1,))
    message.raw_input_contents.append(content)
    try:
        decode_request(message)
    except InvalidRequestError as error:
        assert "cache_salt" in error.message


@pytest.mark.parametrize("kind", [k for k in ERRORS_BY_CODE.values() if k is not ContextOverflowError])
def test_errors_keep_class_and_message(kind):
    """The client raises what the engine raised."""
    error = decode_error(encode_error(kind('a "quoted" {message}')))
    assert type(error) is kind
    assert error.message == 'a "quoted" {message}'


def test_context_overflow_keeps_its_numbers():
    """Both numbers of an overflow arrive, even when a server puts words before the text."""
    error = decode_error("in ensemble 'x', " + encode_error(ContextOverflowError(5000, 4096)))
    assert isinstance(error, ContextOverflowError)
    assert (error.prompt_tokens, error.context_tokens) == (5000, 4096)


@pytest.mark.parametrize(
    "text", ["plain words", "{", '{"code": "no_such"}', '{"code": "context_overflow", "message": ""}', ""]
)
def test_foreign_errors_stay_readable(text):
    """An error text that is not ours becomes a plain EngineError."""
    error = decode_error(text)
    assert type(error) is EngineError
    assert error.message == text


def test_limits_round_trip():
    """Limits arrive with their types."""
    limits = EngineLimits(4096, 8, 64, 262144, vision=True, grammar=True, logprobs=False, core="c", model='m "x"')
    assert decode_limits(encode_limits(limits)) == limits
    adapted = dataclasses.replace(limits, adapters=("a", "b"))
    assert decode_limits(encode_limits(adapted)) == adapted


def test_limits_of_an_engine_without_adapters_can_be_read():
    """An engine of an earlier version says nothing of adapters."""
    limits = EngineLimits(4096, 8, 64, 262144, vision=True, grammar=True, logprobs=False, core="c", model="m")
    told = encode_limits(limits)
    del told["adapters"]
    assert decode_limits(told) == limits


def test_missing_limits_are_an_error():
    """Nothing is made up."""
    with pytest.raises(EngineError, match="limits"):
        decode_limits({})
