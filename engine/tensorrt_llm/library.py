"""TensorRT-LLM itself: the only module that imports ``tensorrt_llm`` and PyTorch, and that reads the library's objects.

Every name and argument used here stands in ``contract.yaml`` with its source. Importing this module needs the library.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorrt_llm
import torch
from PIL import Image as Picture
from tensorrt_llm.llmapi import (
    LLM,
    DecodeCudaGraphConfig,
    GuidedDecodingParams,
    KvCacheConfig,
    RequestError,
    SamplingParams,
)

from engine.core import TokenLogprob
from engine.errors import EngineError, EngineLoadError, EngineUnavailableError, InvalidGrammarError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from engine.core import Image

logger = logging.getLogger("engine")

VERSION = "1.4."
"""Releases whose interface the contract describes."""
CONFIGS = {"kv_cache_config": KvCacheConfig, "cuda_graph_config": DecodeCudaGraphConfig}
"""Classes of nested arguments. The graphs' one says by itself that they are for decoding, not for encoding."""
MAX_MESSAGE_CHARACTERS = 500
STATS_TIMEOUT_S = 0.2
"""So long the library waits for one more step before it ends its answer."""
GUIDED_FAILURE = "guided decoding error"
"""How the library's message begins when one request's grammar failed in a worker."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one response added to a sequence; ``finish_reason`` is the library's word, or None while it runs."""

    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    finish_reason: str | None
    cached_tokens: int


class Generation:
    """One request in the library. Iterating yields what each response adds; the last one has a finish reason."""

    def __init__(self, output: Any, logprobs: int | None) -> None:
        self._output = output
        self._logprobs = logprobs

    def __aiter__(self) -> Generation:
        """Return itself."""
        return self

    async def __anext__(self) -> Step:
        """Wait for the next response.

        Raises:
            EngineError: the request failed, or the library did.
        """
        # The iterator yields one object that changes under the reader's hands; ``token_ids`` and ``logprobs`` grow,
        # so only the ``*_diff`` properties are deltas, and they must be read before the next step.
        try:
            output = await anext(self._output)
        except StopAsyncIteration:
            raise
        except Exception as error:  # the library's boundary: RuntimeError, its own errors, and what its workers raised
            raise translated(error) from error
        reported = getattr(output, "error", None)
        if reported is not None:
            raise translated(RequestError(reported))
        completion = output.outputs[0]
        token_ids = tuple(completion.token_ids_diff)
        entries: Sequence[Any] = completion.logprobs_diff if self._logprobs is not None else ()
        logprobs = tuple(_logprob(i, e, self._logprobs or 0) for i, e in zip(token_ids, entries, strict=False))
        return Step(token_ids, logprobs, completion.finish_reason, int(output.cached_tokens))

    def abort(self) -> None:
        """Ask the workers to stop; responses go on until one that says cancelled. Dropping the iterator stops nothing.

        After the end there is nothing left to stop, nor in a library that is lost.
        """
        if self._output.finished or self._output.aborted():
            return
        try:
            self._output.abort()
        except Exception:  # the library's boundary
            logger.exception("TensorRT-LLM could not abort a sequence")


def _logprob(token_id: int, entry: Mapping[int, Any], count: int) -> TokenLogprob:
    """Return one drawn id's entry. The library's holds the ``count`` most likely ids, and the drawn one besides."""
    ranked = sorted(entry.items(), key=lambda item: (-item[1].logprob, item[0]))[:count]
    top = tuple((int(rival), float(value.logprob)) for rival, value in ranked)
    return TokenLogprob(token_id, float(entry[token_id].logprob), top)


class Library:
    """A running ``LLM``. It must be used from one event loop, except where a method says otherwise."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """Load the model and warm it up; this takes minutes.

        Raises:
            EngineLoadError: this is another release, or the library cannot load the model with these arguments.
        """
        if not tensorrt_llm.__version__.startswith(VERSION):
            message = f"TensorRT-LLM {tensorrt_llm.__version__} is installed; this engine is made for {VERSION}x"
            raise EngineLoadError(message)
        try:
            self._llm = LLM(**dict(_typed(arguments)))
        except Exception as error:  # the library's boundary: CUDA, MPI, validation and file errors alike
            message = f"TensorRT-LLM cannot load {arguments['model']}: {first_line(error)}"
            raise EngineLoadError(message) from error

    def parameters(self, arguments: Mapping[str, Any]) -> Any:
        """Return ``SamplingParams`` of plain values.

        Raises:
            InvalidRequestError: the library takes a value for wrong.
        """
        bias, guide = arguments["embedding_bias"], arguments["guided_decoding"]
        try:
            return SamplingParams(
                **{
                    **arguments,
                    "embedding_bias": torch.from_numpy(bias) if bias is not None else None,
                    # With the llguidance backend, ``grammar`` is Lark, although the library calls it EBNF.
                    "guided_decoding": GuidedDecodingParams(grammar=guide) if guide is not None else None,
                }
            )
        except ValueError as error:
            raise InvalidRequestError(first_line(error)) from error

    def start(self, inputs: Any, parameters: Any, cache_salt: str, logprobs: int | None) -> Generation:
        """Submit a request: token ids, or what ``laid_out`` returned. Needs a running event loop to be awaited in.

        Raises:
            EngineError: the library refused it, or is shutting down.
        """
        try:
            output = self._llm.generate_async(
                inputs, sampling_params=parameters, streaming=True, cache_salt=cache_salt or None
            )
        except Exception as error:  # the library's boundary
            raise translated(error, submitting=True) from error
        return Generation(output, logprobs)

    def prepare_pictures(self, probe: str) -> list[int]:
        """Set the library up for pictures that come sized, and return the ids that it makes of a text.

        Raises:
            EngineLoadError: the checkpoint has no processor for pictures, so the library would size them its own way.
        """
        inputs = self._llm.input_processor
        if inputs.processor is None:
            message = "the checkpoint has no usable processor_config.json, so pictures cannot be preprocessed"
            raise EngineLoadError(message)
        # The input processor passes no options on to the checkpoint's image processor, which would size the pictures
        # once more, to a budget of its own.
        inputs.processor.image_processor.do_resize = False
        # Digests of pictures serve block reuse only. Making them foretells each picture's size as if it were sized
        # once more: the first that differs switches them off, but one that differs later would be refused.
        inputs.multimodal_hashing_supported = False
        return list(self._llm.preprocess({"prompt": probe}).prompt_token_ids)

    def laid_out(self, skeleton: str, images: Sequence[Image], budget: int) -> Any:
        """Return the library's preprocessed form of a skeleton with pictures. One thread at a time.

        Raises:
            EngineError: the library cannot preprocess them.
        """
        # generate_async would do this in the event loop.
        self._llm.input_processor.processor.image_processor.max_soft_tokens = budget
        pictures = [Picture.frombytes("RGB", (image.width, image.height), bytes(image.rgb)) for image in images]
        try:
            return self._llm.preprocess({"prompt": skeleton, "multi_modal_data": {"image": pictures}})
        except Exception as error:  # the library's boundary
            raise translated(error, submitting=True) from error

    @staticmethod
    def with_ids(laid_out: Any, prompt_ids: Sequence[int]) -> Any:
        """Return the same pictures around these ids."""
        return dataclasses.replace(laid_out, prompt_token_ids=list(prompt_ids))

    async def cache_use(self) -> tuple[int, int] | None:
        """Return the KV cache's places for tokens, and those taken, as of the last step; None when there was no step.

        Raises:
            EngineError: the library does not say.
        """
        said: Mapping[str, Any] | None = None
        try:
            # Each step is told once, so an answer is everything since the one before.
            async for step in self._llm.get_stats_async(timeout=STATS_TIMEOUT_S):
                said = step.get("kvCacheStats") or said
            if said is None:
                return None
            block = int(said["tokensPerBlock"])
            return int(said["maxNumBlocks"]) * block, int(said["usedNumBlocks"]) * block
        except Exception as error:  # the library's boundary
            raise translated(error) from error

    def is_healthy(self) -> bool:
        """Ask the library; may block, so not for the event loop. It has no public question of this kind."""
        try:
            return bool(self._llm._check_health())  # noqa: SLF001 - what trtllm-serve's own health check asks
        except Exception:  # the library's boundary: a question that fails is answered
            logger.exception("TensorRT-LLM's health check failed")
            return False

    def close(self) -> None:
        """Stop the workers; may block."""
        self._llm.shutdown()


def _typed(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the arguments with the library's own classes in place of nested mappings, which it checks strictly."""
    for name, value in arguments.items():
        kind = CONFIGS.get(name)
        yield name, kind(**value) if kind is not None else value


def translated(error: Exception, *, submitting: bool = False) -> EngineError:
    """Return our error for one of the library's.

    The library refuses a request by ``RequestError``, and before it has submitted one by ``ValueError``, ``TypeError``
    or ``NotImplementedError`` too; anything else means that its workers are lost.
    """
    if isinstance(error, EngineError):
        return error
    text = first_line(error)
    if isinstance(error, RequestError):
        if text.lower().startswith(GUIDED_FAILURE):
            return InvalidGrammarError(f"the grammar became too complex while generating: {text}")
        return InvalidRequestError(text) if submitting else EngineError(f"TensorRT-LLM failed the request: {text}")
    if submitting and isinstance(error, ValueError | TypeError | NotImplementedError):
        return InvalidRequestError(f"TensorRT-LLM refuses the request: {text}")
    return EngineUnavailableError(f"TensorRT-LLM has stopped working: {text}")


def first_line(error: Exception) -> str:
    """Return an error's first line, for people: traces of workers are for the log only."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:MAX_MESSAGE_CHARACTERS]
