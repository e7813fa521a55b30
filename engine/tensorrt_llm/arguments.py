"""The arguments with which TensorRT-LLM's ``LLM`` is started: chosen by us from a runtime, or frozen in a bundle.

Pure but for reading a bundle's file; nothing here needs the library. The keys are ``LLM``'s own argument names, the
values plain data, so that the same mapping is what ``llm_args.yaml`` of an engine bundle holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from engine.errors import EngineLoadError
from engine.images import MAX_SOFT_TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from config.runtime import EngineRuntime

FROZEN_ARGUMENTS = "llm_args.yaml"
STEP_TOKENS = 8192
"""Most tokens of one forward pass."""
PICTURE_PATCHES = 9 * MAX_SOFT_TOKENS
"""Patches of the largest picture: 3 by 3 become one soft token. The vision tower takes a picture whole."""
LEAST_STEP_TOKENS = 2048
"""An image block (up to 1120 soft tokens and its two markers) must fit one pass: its attention goes both ways."""
DTYPES = {"auto": "auto", "bf16": "bfloat16", "fp8": "auto", "nvfp4": "auto"}
"""What ``dtype`` is by precision. A quantised checkpoint says itself how its weights are stored."""
CACHE_FOLDERS = {
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "TRITON_CACHE_DIR": "triton",
    "CUTE_DSL_CACHE_DIR": "cute_dsl",
    "TRTLLM_DG_CACHE_DIR": "deep_gemm",
    "CUDA_CACHE_PATH": "cuda",
}


def llm_arguments(runtime: EngineRuntime) -> dict[str, Any]:
    """Return the arguments of ``LLM`` for a runtime that names a checkpoint.

    Raises:
        EngineLoadError: the runtime asks for something that TensorRT-LLM cannot do for Gemma 4.
    """
    if runtime.checkpoint_path is None:
        message = "checkpoint_path is missing: tensorrt_llm loads a checkpoint in Hugging Face layout"
        raise EngineLoadError(message)
    if runtime.draft_path is not None:
        # Its MTP for Gemma 4 takes no guided decoding, and its two-model form is announced to leave in 1.4.
        message = "tensorrt_llm cannot use a draft model for Gemma 4: it would refuse grammars; leave draft_path out"
        raise EngineLoadError(message)
    if runtime.precision not in DTYPES:
        message = f"precision {runtime.precision!r} is unknown to tensorrt_llm: choose one of {', '.join(DTYPES)}"
        raise EngineLoadError(message)
    return {
        "model": str(runtime.checkpoint_path),
        "dtype": DTYPES[runtime.precision],
        # Gemma 4 asserts that pipeline and context parallelism are 1; all GPUs share every layer.
        "tensor_parallel_size": runtime.tensor_parallel,
        "trust_remote_code": False,
        **_limits(runtime),
        **_memory(runtime),
        **_serving(),
    }


def _limits(runtime: EngineRuntime) -> dict[str, Any]:
    return {
        "max_batch_size": runtime.max_sequences,
        "max_num_tokens": _step_tokens(runtime),
        "max_seq_len": runtime.context_tokens,
        "max_beam_width": 1,
        # Falls back to max_num_tokens, and a larger picture would be refused when it is scheduled.
        "encoder_max_num_tokens": max(PICTURE_PATCHES, _step_tokens(runtime)),
        # Without it a prompt longer than max_num_tokens is an error.
        "enable_chunked_prefill": True,
    }


def _memory(runtime: EngineRuntime) -> dict[str, Any]:
    return {
        "kv_cache_config": {
            # Gemma 4's feature row says No to block reuse; the library's default is True.
            "enable_block_reuse": False,
            # A part of what the weights leave free, not of the GPU's whole memory.
            "free_gpu_memory_fraction": runtime.gpu_memory_fraction,
            # An 8-bit cache is refused by the mask that image blocks need.
            "dtype": "auto",
        },
        # Graphs are captured again at every start, so there are few of them; padding fills the gaps.
        "cuda_graph_config": {"enable_padding": True, "batch_sizes": graph_sizes(runtime.max_sequences)},
    }


def _serving() -> dict[str, Any]:
    return {
        # The model's own default changed between versions; FLASHINFER leaks memory in long runs (1.3.0rc26).
        "attn_backend": "TRTLLM",
        # Unset, every guided request fails; only llguidance takes our grammars. There is no reasoning_parser: thinking
        # budgets are part of grammars, and Gemma 4's parser lacks names that guided requests would read of it.
        "guided_decoding_backend": "llguidance",
        # Every token at once: what waits is joined on our side, when a receiver lags.
        "stream_interval": 1,
        # Results that another process has already turned to text have no token ids.
        "num_postprocess_workers": 0,
        "enable_autotuner": True,
        # What each step says of the KV cache; ``cache_watch`` asks for it.
        "enable_iter_perf_stats": True,
        # No usage report leaves the host. The library reads this variable when it is about to report.
        "env_overrides": {"TRTLLM_NO_USAGE_STATS": "1"},
    }


def _step_tokens(runtime: EngineRuntime) -> int:
    wanted = min(STEP_TOKENS, max(LEAST_STEP_TOKENS, runtime.context_tokens))
    return max(wanted, runtime.max_sequences)


def graph_sizes(max_sequences: int) -> list[int]:
    """Return the batch sizes for which CUDA graphs are captured: powers of two, and the largest batch."""
    sizes = [1]
    while sizes[-1] * 2 <= max_sequences:
        sizes.append(sizes[-1] * 2)
    return sizes if sizes[-1] == max_sequences else [*sizes, max_sequences]


def cache_environment(folder: Path) -> dict[str, str]:
    """Return the variables that put kernel and autotuner caches below a folder, for the process that hosts the engine.

    They must be in its environment before it starts: FlashInfer reads its own when it is imported, so ``LLM``'s
    ``env_overrides`` come too late.
    """
    paths = {variable: str(folder / name) for variable, name in CACHE_FOLDERS.items()}
    return paths | {"TLLM_AUTOTUNER_CACHE_PATH": str(folder / "autotuner.json")}


def starting_arguments(runtime: EngineRuntime) -> dict[str, Any]:
    """Return what ``LLM`` is started with: a bundle's frozen arguments, or ``llm_arguments``.

    Raises:
        EngineLoadError: the bundle's file is missing, unreadable, or made for less than the runtime promises.
    """
    chosen = llm_arguments(runtime)
    if runtime.bundle_path is None:
        return chosen
    path = runtime.bundle_path / FROZEN_ARGUMENTS
    frozen = _read(path)
    frozen["model"] = str(runtime.bundle_path / frozen["model"]) if "model" in frozen else chosen["model"]
    _check_frozen(path, frozen, chosen)
    return frozen


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"the bundle's file {path} cannot be read: {error.strerror}"
        raise EngineLoadError(message) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        message = f"the bundle's file {path} is no YAML: {error}"
        raise EngineLoadError(message) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        message = f"the bundle's file {path} does not map argument names to values"
        raise EngineLoadError(message)
    return content


def _check_frozen(path: Path, frozen: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Refuse a bundle that cannot do what the launcher has promised, naming the argument and both values."""
    for name in ("max_seq_len", "max_batch_size"):
        if not isinstance(frozen.get(name), int) or frozen[name] < chosen[name]:
            message = f"{path}: {name} is {frozen.get(name)}, but this start needs {chosen[name]}; rebuild the bundle"
            raise EngineLoadError(message)
    for name in ("tensor_parallel_size", "guided_decoding_backend", "num_postprocess_workers"):
        if frozen.get(name) != chosen[name]:
            message = f"{path}: {name} is {frozen.get(name)}, but this start needs {chosen[name]}; rebuild the bundle"
            raise EngineLoadError(message)
    cache = frozen.get("kv_cache_config")
    if not isinstance(cache, dict) or cache.get("enable_block_reuse") is not False:
        message = f"{path}: kv_cache_config.enable_block_reuse must be false: Gemma 4 supports no block reuse"
        raise EngineLoadError(message)
