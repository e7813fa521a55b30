"""With which arguments vLLM is started: everything that Gemma 4 needs is chosen here, nothing is left to the user.

Pure: a runtime goes in, names and values come out; ``engine.vllm.library`` hands them over. The facts about vLLM are
those of 0.32.0, see ``contract.yaml``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from config.settings_adapters import SLOT_RANKS
from engine.admission import MAX_LOGPROBS
from engine.images import MAX_SOFT_TOKENS

if TYPE_CHECKING:
    from config.runtime import EngineRuntime

SCHEDULER: Final = "engine.vllm.scheduler.Gemma4Scheduler"
CPU_WORKER: Final = "engine.vllm.cpu_worker.Gemma4CpuWorker"
LAYERS: Final = "language_model.model.layers"
"""Where vLLM has the text model's layers."""
BATCH_TOKENS: Final = 8192
"""Tokens of one step at most: vLLM's own choice for servers with large GPUs."""
SMALL_BATCH_TOKENS: Final = 2048
"""The same on a CPU: a step of more would hold up running sequences for seconds."""
DRAFT_TOKENS: Final = 4
"""Ids that the MTP assistant proposes per step: where its gain levels off for the 31B, by public measurements."""
IMAGES: Final = 16
CPU_CACHE_BYTES: Final = 2**30
CPU_BLOCK_TOKENS: Final = 32
"""The smallest block that suits its attention on a CPU; its own choice, 128, finds few prefixes again."""
PRECISIONS: Final = {"bf16": "bfloat16", "fp32": "float32"}
"""Number formats that are chosen by ``dtype``; others are written in the checkpoint's own configuration."""
VARIABLES: Final = {
    # A forked child of a process with gRPC's threads hangs; vLLM forks unless told otherwise.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # No usage statistics leave the machine, and nothing is fetched: the launcher has put the files in place.
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    # Of vLLM's two model runners the one that the conformance tests ran on; a CPU has no choice, a GPU has.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    # vLLM would install its own log handlers; ours write what its loggers say.
    "VLLM_CONFIGURE_LOGGING": "0",
    # Pinning threads to cores takes the cores of whatever else runs in the container.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
CPU_VARIABLES: Final = {
    # The first request for log-probabilities would wait half a minute for a compiler.
    "TORCH_COMPILE_DISABLE": "1",
}


def engine_arguments(runtime: EngineRuntime, *, on_cpu: bool, layers: int = 0) -> dict[str, Any]:
    """Return the fields of ``AsyncEngineArgs`` for a runtime whose checkpoint, with so many layers, is there."""
    arguments: dict[str, Any] = {
        "model": str(runtime.checkpoint_path),
        "dtype": PRECISIONS.get(runtime.precision, "auto"),
        "max_model_len": runtime.context_tokens,
        "max_num_seqs": runtime.max_sequences,
        "tensor_parallel_size": runtime.tensor_parallel,
        "max_logprobs": MAX_LOGPROBS,
        # Log-probabilities are those of the unchanged logits.
        "logprobs_mode": "raw_logprobs",
        # The checkpoint's generation_config.json would add its stop ids to every request; requests name their own.
        "generation_config": "vllm",
        "seed": 0,
        "enable_prefix_caching": True,
        # Five of six layers remember one window: without the hybrid manager they would be given the whole context.
        "disable_hybrid_kv_cache_manager": False,
        "enable_chunked_prefill": True,
        # A picture's tokens see each other in both directions, so it is computed whole, in one step.
        "disable_chunked_mm_input": True,
        "scheduling_policy": "priority",
        "scheduler_cls": SCHEDULER,
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": False},
        # Requests bring patches of pixels and their digests, so vLLM's own preprocessing and its cache have no part.
        "mm_processor_cache_gb": 0,
        # How much memory the vision tower is given, and the most tokens of one picture.
        "mm_processor_kwargs": {"max_soft_tokens": MAX_SOFT_TOKENS},
        # For the memory that is set aside only: the API counts pictures, and our prompts do not pass where vLLM does.
        "limit_mm_per_prompt": {"image": IMAGES, "video": 0, "audio": 0},
        "disable_log_stats": True,
    }
    own = (_cpu(runtime) if on_cpu else _gpu(runtime)) | _adapters(runtime, layers, on_cpu=on_cpu)
    return arguments | own | _draft(runtime) | _cluster(runtime)


def environment(runtime: EngineRuntime) -> dict[str, str]:
    """Return the variables that have to be set before vLLM is imported."""
    return VARIABLES | {"OMP_NUM_THREADS": str(runtime.threads)}


def _gpu(runtime: EngineRuntime) -> dict[str, Any]:
    return {
        "gpu_memory_utilization": runtime.gpu_memory_fraction,
        "max_num_batched_tokens": max(runtime.batch_tokens or BATCH_TOKENS, MAX_SOFT_TOKENS, runtime.max_sequences),
        "enforce_eager": not runtime.cuda_graphs,
        "async_scheduling": True,
    }


def _cpu(runtime: EngineRuntime) -> dict[str, Any]:
    return {
        "kv_cache_memory_bytes": CPU_CACHE_BYTES,
        "block_size": CPU_BLOCK_TOKENS,
        "max_num_batched_tokens": max(SMALL_BATCH_TOKENS, runtime.max_sequences),
        "dtype": PRECISIONS.get(runtime.precision, "float32"),
        # Compiling takes minutes and wins nothing for the models that a CPU is used for.
        "enforce_eager": True,
        "async_scheduling": True,
    }


def _draft(runtime: EngineRuntime) -> dict[str, Any]:
    if runtime.draft_path is None:
        return {}
    settings = {"method": "mtp", "model": str(runtime.draft_path), "num_speculative_tokens": DRAFT_TOKENS}
    return {"speculative_config": settings}


def _cluster(runtime: EngineRuntime) -> dict[str, Any]:
    cluster = runtime.cluster
    if cluster is None:
        return {}
    return {
        "distributed_executor_backend": "mp",
        "nnodes": cluster.nodes,
        "node_rank": cluster.rank,
        "master_addr": cluster.host,
        "master_port": cluster.port,
    }


def _adapters(runtime: EngineRuntime, layers: int, *, on_cpu: bool) -> dict[str, Any]:
    """Return what lets an engine serve LoRA adapters.

    Only attention and dense MLP of the text model can be changed: that is what the plan has counted memory for.
    """
    adapters = runtime.adapters
    if adapters is None:
        return {}
    parts = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    arguments: dict[str, Any] = {
        "enable_lora": True,
        "max_loras": adapters.max_gpu,
        "max_cpu_loras": max(adapters.max_cpu, adapters.max_gpu),
        "max_lora_rank": next(rank for rank in SLOT_RANKS if rank >= adapters.max_rank),
        "lora_target_modules": [f"{LAYERS}.{layer}.{part}" for layer in range(layers) for part in parts],
    }
    return arguments | ({"worker_cls": CPU_WORKER} if on_cpu else {})
