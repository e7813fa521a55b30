"""The wire between the API and an engine: engine requests and deltas as KServe v2 tensors, and errors as text.

Pure translation. Names follow what Triton users know from TensorRT-LLM's models; a tensor that is left out means the
default of the matching ``engine.core`` field. ``docs/engine.md`` has the table. Every response is a delta.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from engine.core import (
    EngineDelta,
    EngineLimits,
    EngineRequest,
    EngineStats,
    FinishReason,
    Image,
    Sampling,
    TokenLogprob,
    Usage,
)
from engine.errors import ERRORS_BY_CODE, ContextOverflowError, EngineError, InvalidImageError, InvalidRequestError
from engine.tensors import OutputWriter, TensorReader, TensorWriter, input_writer, output_writer
from engine.triton.protocol import MODEL_NAME, service_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

INPUTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "input_ids": ("INT32", (-1,)),
    "request_output_len": ("INT32", (1,)),
    "image_bytes": ("BYTES", (-1,)),
    "image_sizes": ("INT32", (-1, 2)),
    "temperature": ("FP32", (1,)),
    "top_k": ("INT32", (1,)),
    "top_p": ("FP32", (1,)),
    "min_p": ("FP32", (1,)),
    "repetition_penalty": ("FP32", (1,)),
    "presence_penalty": ("FP32", (1,)),
    "frequency_penalty": ("FP32", (1,)),
    "random_seed": ("UINT64", (1,)),
    "logit_bias_ids": ("INT32", (-1,)),
    "logit_bias_values": ("FP32", (-1,)),
    "stop_token_ids": ("INT32", (-1,)),
    "min_tokens": ("INT32", (1,)),
    "ignore_stop_token_ids": ("BOOL", (1,)),
    "guided_decoding_guide": ("BYTES", (1,)),
    "guided_decoding_begun": ("INT32", (1,)),
    "logprobs": ("INT32", (1,)),
    "priority": ("INT32", (1,)),
    "cache_salt": ("BYTES", (1,)),
    "lora_name": ("BYTES", (1,)),
}
"""Input tensors: datatype and shape. Only the first two are required."""

OUTPUTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "output_ids": ("INT32", (-1,)),
    "output_log_probs": ("FP32", (-1,)),
    "top_log_prob_ids": ("INT32", (-1, -1)),
    "top_log_probs": ("FP32", (-1, -1)),
    "finish_reason": ("BYTES", (1,)),
    "usage": ("INT32", (3,)),
}
"""Output tensors. ``finish_reason`` comes with the last delta only, ``usage`` (prompt, cached and completion tokens)
with the first and the last."""

SAMPLING_FIELDS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
FINAL_RESPONSE = "triton_final_response"


def encode_request(request: EngineRequest) -> service_pb2.ModelInferRequest:
    """Return the message that carries a request; what equals its default is left out, sampling is spelled out."""
    message = service_pb2.ModelInferRequest(model_name=MODEL_NAME, id=request.request_id)
    writer = input_writer(message)
    writer.numbers("input_ids", "INT32", request.prompt_ids)
    writer.numbers("request_output_len", "INT32", (request.max_tokens,))
    if request.images:
        writer.texts("image_bytes", [image.rgb for image in request.images])
        sizes = [side for image in request.images for side in (image.height, image.width)]
        writer.numbers("image_sizes", "INT32", sizes, (len(request.images), 2))
    _encode_sampling(writer, request.sampling)
    numbers: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("stop_token_ids", request.stop_ids),
        ("min_tokens", (request.min_tokens,) if request.min_tokens else ()),
        ("ignore_stop_token_ids", (1,) if request.ignore_stop_ids else ()),
        ("guided_decoding_begun", (request.grammar_begun,) if request.grammar_begun else ()),
        ("logprobs", () if request.logprobs is None else (request.logprobs,)),
        ("priority", (request.priority,) if request.priority else ()),
    )
    for name, values in numbers:
        if values:
            writer.numbers(name, INPUTS[name][0], values)
    texts = {"guided_decoding_guide": request.grammar, "cache_salt": request.cache_salt or None}
    for name, text in (texts | {"lora_name": request.adapter}).items():
        if text is not None:
            writer.texts(name, (text.encode(),))
    return message


def _encode_sampling(writer: TensorWriter, sampling: Sampling) -> None:
    for name in SAMPLING_FIELDS:
        writer.numbers(name, INPUTS[name][0], (getattr(sampling, name),))
    if sampling.seed is not None:
        writer.numbers("random_seed", "UINT64", (sampling.seed,))
    if sampling.logit_bias:
        writer.numbers("logit_bias_ids", "INT32", tuple(sampling.logit_bias))
        writer.numbers("logit_bias_values", "FP32", tuple(sampling.logit_bias.values()))


def decode_request(message: service_pb2.ModelInferRequest) -> EngineRequest:
    """Return the request that a message carries.

    Raises:
        InvalidRequestError: a tensor is missing, unknown or malformed; the message names it.
    """
    return read_request(message.id, TensorReader(message.inputs, message.raw_input_contents))


def read_request(request_id: str, reader: TensorReader) -> EngineRequest:
    """Return the request that these tensors make.

    Raises:
        InvalidRequestError: a tensor is missing, unknown or malformed; the message names it.
    """
    if unknown := reader.names() - INPUTS.keys():
        problem = f"unknown input tensors: {', '.join(sorted(unknown))}"
        raise InvalidRequestError(problem)
    prompt_ids = reader.numbers("input_ids", "INT32")
    max_tokens = reader.number("request_output_len", "INT32")
    if prompt_ids is None or max_tokens is None:
        problem = f"the tensor {'input_ids' if prompt_ids is None else 'request_output_len'} is missing"
        raise InvalidRequestError(problem)
    grammar = _decode_text(reader, "guided_decoding_guide")
    return EngineRequest(
        request_id=request_id,
        prompt_ids=tuple(prompt_ids),
        max_tokens=max_tokens,
        images=_decode_images(reader),
        sampling=_decode_sampling(reader),
        stop_ids=tuple(reader.numbers("stop_token_ids", "INT32") or ()),
        grammar=grammar,
        grammar_begun=reader.number("guided_decoding_begun", "INT32") or 0,
        logprobs=reader.number("logprobs", "INT32"),
        min_tokens=reader.number("min_tokens", "INT32") or 0,
        ignore_stop_ids=bool(reader.number("ignore_stop_token_ids", "BOOL")),
        priority=reader.number("priority", "INT32") or 0,
        cache_salt=_decode_text(reader, "cache_salt") or "",
        adapter=_decode_text(reader, "lora_name"),
    )


def _decode_text(reader: TensorReader, name: str) -> str | None:
    value = reader.text(name)
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        message = f"the tensor {name} is not UTF-8"
        raise InvalidRequestError(message) from error


def _decode_images(reader: TensorReader) -> tuple[Image, ...]:
    pixels = reader.texts("image_bytes") or []
    sizes = reader.numbers("image_sizes", "INT32") or ()
    if len(sizes) != 2 * len(pixels):
        message = f"image_sizes has {len(sizes)} values; {len(pixels)} images need height and width each"
        raise InvalidImageError(message)
    return tuple(Image(rgb, width=sizes[2 * i + 1], height=sizes[2 * i]) for i, rgb in enumerate(pixels))


def _decode_sampling(reader: TensorReader) -> Sampling:
    given: dict[str, Any] = {name: reader.number(name, INPUTS[name][0]) for name in SAMPLING_FIELDS}
    given = {name: value for name, value in given.items() if value is not None}
    bias_ids = reader.numbers("logit_bias_ids", "INT32") or ()
    bias_values = reader.numbers("logit_bias_values", "FP32") or ()
    if len(bias_ids) != len(bias_values):
        message = f"logit_bias_ids has {len(bias_ids)} values, logit_bias_values {len(bias_values)}"
        raise InvalidRequestError(message)
    seed = reader.number("random_seed", "UINT64")
    return Sampling(**given, seed=seed, logit_bias=dict(zip(bias_ids, bias_values, strict=True)))


def encode_delta(request_id: str, delta: EngineDelta) -> service_pb2.ModelStreamInferResponse:
    """Return the message that carries a delta."""
    message = service_pb2.ModelStreamInferResponse()
    response = message.infer_response
    response.model_name = MODEL_NAME
    response.id = request_id
    write_delta(output_writer(response), delta)
    if delta.finish_reason is not None:
        response.parameters[FINAL_RESPONSE].bool_param = True
    return message


def write_delta(writer: OutputWriter, delta: EngineDelta) -> None:
    """Write a delta's tensors."""
    writer.numbers("output_ids", "INT32", delta.token_ids)
    if delta.logprobs:
        writer.numbers("output_log_probs", "FP32", [entry.logprob for entry in delta.logprobs])
        width = len(delta.logprobs[0].top)
        if width:
            shape = (len(delta.logprobs), width)
            rivals = [rival for entry in delta.logprobs for rival in entry.top]
            writer.numbers("top_log_prob_ids", "INT32", [token_id for token_id, _ in rivals], shape)
            writer.numbers("top_log_probs", "FP32", [logprob for _, logprob in rivals], shape)
    if delta.finish_reason is not None:
        writer.texts("finish_reason", (delta.finish_reason.value.encode(),))
    if delta.usage is not None:
        usage = delta.usage
        writer.numbers("usage", "INT32", (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens))


def decode_delta(message: service_pb2.ModelStreamInferResponse) -> EngineDelta:
    """Return the delta that a message carries.

    Raises:
        EngineError: the message carries an error; its class is the one that the engine raised.
    """
    if message.error_message:
        raise decode_error(message.error_message)
    response = message.infer_response
    reader = TensorReader(response.outputs, response.raw_output_contents)
    token_ids = tuple(reader.numbers("output_ids", "INT32") or ())
    reason = reader.text("finish_reason")
    counts = reader.numbers("usage", "INT32")
    return EngineDelta(
        token_ids,
        _decode_logprobs(reader, token_ids),
        None if reason is None else FinishReason(reason.decode()),
        None if counts is None else Usage(*counts),
    )


def _decode_logprobs(reader: TensorReader, token_ids: tuple[int, ...]) -> tuple[TokenLogprob, ...]:
    drawn = reader.numbers("output_log_probs", "FP32")
    if drawn is None:
        return ()
    ids = reader.numbers("top_log_prob_ids", "INT32") or ()
    values = reader.numbers("top_log_probs", "FP32") or ()
    rivals = list(zip(ids, values, strict=True))
    width = len(rivals) // len(token_ids)
    return tuple(
        TokenLogprob(token_id, drawn[i], tuple(rivals[i * width : (i + 1) * width]))
        for i, token_id in enumerate(token_ids)
    )


def encode_error(error: EngineError) -> str:
    """Return an error as one line of JSON: a code that names its class, its message, its numbers if it has any."""
    fields: dict[str, str | int] = {"code": error.code, "message": error.message}
    if isinstance(error, ContextOverflowError):
        fields |= {"prompt_tokens": error.prompt_tokens, "context_tokens": error.context_tokens}
    return json.dumps(fields)


def decode_error(text: str) -> EngineError:
    """Return the error that a text carries; a text of another origin (Triton's own) becomes a plain ``EngineError``."""
    try:
        # Triton may put its own words before the text of a model's error.
        fields = json.loads(text[text.index("{") :])
        code, message = fields["code"], fields["message"]
        if code == ContextOverflowError.code:
            return ContextOverflowError(fields["prompt_tokens"], fields["context_tokens"])
        return ERRORS_BY_CODE[code](message)
    except (ValueError, KeyError, TypeError):
        return EngineError(text)


def encode_limits(limits: EngineLimits) -> dict[str, str]:
    """Return limits as texts, the form of a model configuration's parameters."""
    return {key: json.dumps(value) for key, value in dataclasses.asdict(limits).items()}


def decode_limits(parameters: Mapping[str, str]) -> EngineLimits:
    """Return the limits that a model configuration's parameters carry.

    Raises:
        EngineError: one is missing or malformed.
    """
    try:
        names = {field.name for field in dataclasses.fields(EngineLimits)} & parameters.keys()
        return EngineLimits.of({name: json.loads(parameters[name]) for name in names})
    except (TypeError, ValueError) as error:
        message = f"the engine does not tell its limits: {error}"
        raise EngineError(message) from error


def encode_stats(stats: EngineStats) -> dict[str, int]:
    """Return counters and gauges by name, those that the core can tell."""
    return {name: value for name, value in dataclasses.asdict(stats).items() if value is not None}
