"""The only module of the engine process that touches vLLM: its engine, its inputs, its errors.

What is used of vLLM is listed in ``contract.yaml``, which a test holds to this file and to the installed vLLM.
Importing it imports vLLM, which takes seconds and reads the environment.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.inputs import mm_input, tokens_input
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from engine.errors import EngineError, EngineUnavailableError, InvalidRequestError
from engine.images import image_key
from engine.vllm.patches import image_patches

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

    from engine.core import Image
    from engine.images import ImageRun

IMAGE = "image"


def is_on_cpu() -> bool:
    """Tell whether this is vLLM's CPU build."""
    return bool(current_platform.is_cpu())


def start_engine(arguments: Mapping[str, Any]) -> AsyncLLM:
    """Start vLLM's engine with its processes; returns when the model is loaded.

    Raises:
        Exception: whatever vLLM raises when it cannot start.
    """
    return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))


def model_facts(engine: AsyncLLM) -> tuple[int, int, int]:
    """Return the vocabulary's size, the context's length and the image token's id, as vLLM read them."""
    config = engine.model_config
    return config.get_vocab_size(), config.max_model_len, int(config.hf_config.image_token_id)


def sampling_params(arguments: Mapping[str, Any], grammar: str | None) -> SamplingParams:
    """Return vLLM's parameters of one sequence.

    Raises:
        InvalidRequestError: vLLM does not take a value.
    """
    constraint = None if grammar is None else StructuredOutputsParams(grammar=grammar)
    with translated():
        return SamplingParams(**arguments, structured_outputs=constraint, output_kind=RequestOutputKind.DELTA)


def prompt_of(
    ids: Sequence[int], images: Sequence[Image], runs: Sequence[ImageRun], cache_salt: str
) -> Mapping[str, Any]:
    """Return a prompt as vLLM's engine takes it after all preprocessing: no id of ours is added, moved or replaced."""
    salt = cache_salt or None
    prompt: Mapping[str, Any]
    if not images:
        prompt = tokens_input(list(ids), cache_salt=salt)
        return prompt
    prompt = mm_input(
        prompt_token_ids=list(ids),
        mm_kwargs=MultiModalKwargsItems({IMAGE: [_image_item(image) for image in images]}),
        mm_hashes={IMAGE: [image_key(image).hex() for image in images]},
        mm_placeholders={IMAGE: [PlaceholderRange(offset=run.start, length=run.count) for run in runs]},
        cache_salt=salt,
    )
    return prompt


def _image_item(image: Image) -> MultiModalKwargsItem:
    patches, places = image_patches(image)
    tensors = {"pixel_values": torch.from_numpy(patches), "pixel_position_ids": torch.from_numpy(places)}
    field = MultiModalBatchedField()
    return MultiModalKwargsItem(
        {name: MultiModalFieldElem(data=tensor, field=field) for name, tensor in tensors.items()}
    )


def generate(
    engine: AsyncLLM, prompt: Mapping[str, Any], params: SamplingParams, request_id: str, priority: int
) -> AsyncGenerator[Any, None]:
    """Start a sequence; vLLM serves small numbers first, the protocol large ones."""
    outputs: AsyncGenerator[Any, None] = engine.generate(prompt, params, request_id, priority=-priority)
    return outputs


def has_died(engine: AsyncLLM) -> bool:
    """Tell whether vLLM's processes have failed; they do not come back."""
    return bool(engine.errored)


@contextmanager
def translated() -> Iterator[None]:
    """Turn vLLM's errors into those of the protocol."""
    try:
        yield
    except EngineDeadError as error:
        message = "vLLM's engine process has ended"
        raise EngineUnavailableError(message) from error
    except EngineGenerateError as error:
        message = f"vLLM failed: {error.__cause__ or error}"
        raise EngineError(message) from error
    except (VLLMClientError, ValueError) as error:
        raise InvalidRequestError(str(error)) from error
