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
from vllm.lora.request import LoRARequest
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
from vllm.v1.executor.multiproc_executor import MultiprocExecutor
from vllm.v1.metrics.loggers import PrometheusStatLogger

from engine.errors import EngineError, EngineUnavailableError, InvalidRequestError
from engine.images import image_key
from engine.vllm.adapter_files import AdapterError
from engine.vllm.patches import image_patches

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
    from pathlib import Path

    from engine.core import Image
    from engine.images import ImageRun
    from engine.vllm.statistics import Observed

IMAGE = "image"


def is_on_cpu() -> bool:
    """Tell whether this is vLLM's CPU build."""
    return bool(current_platform.is_cpu())


def start_engine(arguments: Mapping[str, Any], observed: Observed) -> AsyncLLM:
    """Start vLLM's engine with its processes; returns when the model is loaded. ``observed`` is kept up to date.

    Raises:
        Exception: whatever vLLM raises when it cannot start.
    """
    return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), stat_loggers=[_recorder_into(observed)])


def _recorder_into(observed: Observed) -> type[PrometheusStatLogger]:
    """Return the class of an object that vLLM tells of every step.

    It stands in for vLLM's own Prometheus metrics, which would take some time of every step and be read by nobody.
    """

    class Recorder(PrometheusStatLogger):  # type: ignore[misc] # vLLM is not installed where types are checked
        def __init__(self, vllm_config: Any, engine_indexes: list[int] | None = None) -> None:
            """Register nothing."""

        def record(self, scheduler_stats: Any, iteration_stats: Any, **_others: Any) -> None:
            if scheduler_stats is not None:
                observed.waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
                observed.cache_usage = scheduler_stats.kv_cache_usage
            if iteration_stats is not None:
                observed.preemptions += iteration_stats.num_preempted_reqs

        def record_sleep_state(self, *_state: int) -> None: ...

        def record_admission_rejection(self, _reason: str) -> None: ...

        def log_engine_initialized(self) -> None: ...

    return Recorder


def start_worker(arguments: Mapping[str, Any]) -> MultiprocExecutor:
    """Start vLLM's processes for one machine's share of an engine; returns when the model is loaded everywhere.

    Raises:
        Exception: whatever vLLM raises when it cannot start.
    """
    config = AsyncEngineArgs(**arguments).create_engine_config(headless=True)
    return MultiprocExecutor(config, monitor_workers=False)


def worker_sentinels(executor: MultiprocExecutor) -> list[int]:
    """Return a file descriptor for each process of such a share, readable once it has ended."""
    return [int(worker.proc.sentinel) for worker in executor.workers]


def model_facts(engine: AsyncLLM) -> tuple[int, int, int]:
    """Return the vocabulary's size, the context's length and the image token's id, as vLLM read them."""
    config = engine.model_config
    return config.get_vocab_size(), config.max_model_len, int(config.hf_config.image_token_id)


def cache_tokens(engine: AsyncLLM) -> int | None:
    """Return for how many tokens the KV cache has places, all kinds of layers considered; None if vLLM does not say."""
    cache = engine.vllm_config.cache_config
    places: int | None = cache.kv_cache_size_tokens
    return places


def queue_seconds(output: Any) -> float | None:
    """Return how long the sequence of an output waited for its first step; None before that one."""
    times = output.metrics
    return times.scheduled_ts - times.queued_ts if times is not None and times.scheduled_ts else None


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


def adapter_handle(name: str, number: int, folder: Path) -> LoRARequest:
    """Return what vLLM is told to use an adapter; ``name`` and ``number`` must never stand for other weights.

    vLLM's prefix cache tells adapters apart by name and folder.
    """
    return LoRARequest(lora_name=name, lora_int_id=number, lora_path=str(folder))


async def load_adapter(engine: AsyncLLM, handle: LoRARequest) -> None:
    """Let vLLM load an adapter once, so that no step meets one that it cannot load: that would end its process.

    Raises:
        AdapterError: it cannot be loaded.
        EngineUnavailableError: vLLM has stopped.
    """
    try:
        await engine.add_lora(handle)
    except Exception as error:
        # Whatever its worker raised arrives as a plain exception with a text.
        if has_died(engine):
            message = "vLLM has stopped"
            raise EngineUnavailableError(message) from error
        raise AdapterError(str(error)) from error


def generate(
    engine: AsyncLLM,
    prompt: Mapping[str, Any],
    params: SamplingParams,
    request_id: str,
    priority: int,
    adapter: LoRARequest | None,
) -> AsyncGenerator[Any, None]:
    """Start a sequence; vLLM serves small numbers first, the protocol large ones."""
    outputs: AsyncGenerator[Any, None] = engine.generate(
        prompt, params, request_id, lora_request=adapter, priority=-priority
    )
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
