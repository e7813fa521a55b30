"""Variables of NVIDIA's NIM that are not settings here: other names of ours, and those that this server cannot honour.

Nothing that a user sets is ignored in silence, so each is listed with what to do instead. Where a value asks for what
is the case anyway (``NIM_CAPTURE_ENABLE=0``), nothing is said. What would be missed badly stops the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

PREFIX: Final = "NIM_"

ALIASES: Final = MappingProxyType(
    {
        "NIM_HTTP_API_PORT": "NIM_SERVER_PORT",
        "NIM_LOGGING_JSONL": "NIM_JSONL_LOGGING",
        "NIM_MODEL_NAME": "NIM_MODEL_PATH",
        "NIM_FT_MODEL": "NIM_MODEL_PATH",
        "NIM_ENGINE_MODEL_PATH": "NIM_MODEL_PATH",
        "NIM_CUSTOM_MODEL_NAME": "NIM_SERVED_MODEL_NAME",
        "NIM_MANIFEST_PROFILE": "NIM_MODEL_PROFILE",
        "NIM_GPU_MEM_FRACTION": "NIM_GPU_MEMORY_UTILIZATION",
        "NIM_KVCACHE_PERCENT": "NIM_GPU_MEMORY_UTILIZATION",
        "NIM_KV_CACHE_PERCENT": "NIM_GPU_MEMORY_UTILIZATION",
        "NIM_SSL_CERT_PATH": "SSL_CERT_FILE",
        "HF_HUB_OFFLINE": "NIM_OFFLINE",
        "HUGGING_FACE_HUB_TOKEN": "HF_TOKEN",
        "https_proxy": "HTTPS_PROXY",
        "http_proxy": "HTTP_PROXY",
        "no_proxy": "NO_PROXY",
        "AWS_DEFAULT_REGION": "AWS_REGION",
        "AWS_ENDPOINT_URL_S3": "AWS_ENDPOINT_URL",
    }
)
"""Other names under which NIM containers, of 1.x above all, and other programs know a setting -> our name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a variable that has no effect.

    Attributes:
        reason: why, and what to use instead.
        stops: without it the server would not be what was asked for, so it does not start.
        as_it_is: values, in small letters, that ask for nothing else than what is the case.
    """

    reason: str
    stops: bool = False
    as_it_is: frozenset[str] = frozenset()


_OFF: Final = frozenset({"0", "false", "no", "off", "none", "disabled"})
_ON: Final = frozenset({"1", "true", "yes", "on"})
_ONE: Final = frozenset({"1"})

_LORA: Final = "adapters are read from the folder NIM_PEFT_SOURCE, and nobody is asked for them; remove it"
_NODES: Final = "one server runs on one machine; use a profile for the GPUs of one (NIM_TENSOR_PARALLEL_SIZE)"
_ENGINE: Final = "the engine decides this by itself; remove it"
_TOOLS: Final = "tool calling is always on and uses Gemma 4's own format; remove it"
_OTEL: Final = "metrics are not pushed; let Prometheus or a collector read /metrics"
_CODE: Final = "models never bring code of their own; use a checkpoint in its plain format"
_DRAFT: Final = "no engine here decodes speculatively; leave it unset"
_LOGGED: Final = "prompts are never logged or recorded; use the diagnostics routes (NIM_ENABLE_DIAGNOSTICS)"
_VIDEO: Final = "requests cannot hold videos; send single frames as pictures"
_KWARGS: Final = "set NIM_IMAGE_TOKENS for the token budget of pictures"

NOT_SUPPORTED: Final = MappingProxyType(
    {
        # What a user would miss badly: the start is refused.
        "NIM_MIDDLEWARE_CONFIG_PATH": Answer("there is no middleware to configure; use a proxy", stops=True),
        "NIM_SAGEMAKER_MODE": Answer(
            "there are no routes /ping and /invocations; let a proxy map them", stops=True, as_it_is=_OFF
        ),
        "NIM_HEALTH_PORT": Answer("health routes share NIM_SERVER_PORT; point probes at that", stops=True),
        "NIM_NUM_COMPUTE_NODES": Answer(_NODES, stops=True, as_it_is=_ONE),
        "NIM_PIPELINE_PARALLEL_SIZE": Answer(
            "profiles spread a model by tensor parallelism only; use NIM_TENSOR_PARALLEL_SIZE",
            stops=True, as_it_is=_ONE,
        ),
        "NIM_MULTI_NODE": Answer(_NODES, stops=True, as_it_is=_OFF),
        "NIM_ENGINE_MODEL_DOWNLOAD_ONLY": Answer("run download-to-cache instead", stops=True, as_it_is=_OFF),
        # What changes nothing that a client could see, or is always so.
        "NIM_PEFT_API_TIMEOUT_SECS": Answer(_LORA),
        "NIM_LEADER_ROLE": Answer(_NODES, as_it_is=_OFF | _ON),
        "NIM_NODE_RANK": Answer(_NODES, as_it_is=frozenset({"0"})),
        "NIM_MPI_ALLOW_RUN_AS_ROOT": Answer(_NODES, as_it_is=_OFF | _ON),
        "NIM_DISABLE_CUDA_GRAPH": Answer(_ENGINE, as_it_is=_OFF),
        "NIM_ENABLE_CHUNKED_PREFILL": Answer("prompts are always computed in parts; remove it", as_it_is=_ON),
        "NIM_ENABLE_KV_CACHE_REUSE": Answer("prompt prefixes are always reused; remove it", as_it_is=_ON),
        "NIM_ENABLE_KV_CACHE_HOST_OFFLOAD": Answer(_ENGINE, as_it_is=_OFF),
        "NIM_KV_CACHE_HOST_MEM_FRACTION": Answer(_ENGINE),
        "NIM_NUM_KV_CACHE_SEQ_LENS": Answer(_ENGINE),
        "NIM_MAX_NUM_BATCHED_TOKENS": Answer(_ENGINE),
        "NIM_SCHEDULER_POLICY": Answer(_ENGINE),
        "NIM_STREAM_INTERVAL": Answer("tokens are sent as they come and put together only for slow readers; remove it"),
        "NIM_LOW_MEMORY_MODE": Answer(
            "the context shrinks to what fits without being asked; lower NIM_MAX_MODEL_LEN for still less",
            as_it_is=_OFF,
        ),
        "NIM_DRAFT_MODEL_PATH": Answer(_DRAFT),
        "NIM_NUM_SPECULATIVE_TOKENS": Answer(_DRAFT, as_it_is=frozenset({"0"})),
        "NIM_ENABLE_AUTO_TOOL_CHOICE": Answer(_TOOLS, as_it_is=_ON),
        "NIM_TOOL_CALL_PARSER": Answer(_TOOLS, as_it_is=frozenset({"gemma4"})),
        "NIM_TOOL_PARSER_PLUGIN": Answer(_TOOLS),
        "NIM_CHAT_TEMPLATE": Answer("prompts are written by Gemma 4's own rules, not by a template; remove it"),
        "NIM_TOKENIZER_MODE": Answer(
            "the tokenizer is the model's own; remove it", as_it_is=frozenset({"auto", "fast"})
        ),
        "NIM_GUIDED_DECODING_BACKEND": Answer(
            "grammars are compiled by llguidance, always; remove it",
            as_it_is=frozenset({"auto", "guidance", "llguidance"}),
        ),
        "NIM_FORCE_DETERMINISTIC": Answer("a seeded or greedy request repeats if it runs alone", as_it_is=_OFF),
        "NIM_ENABLE_PROMPT_LOGPROBS": Answer("prompts have no logprobs; ask for those of the answer", as_it_is=_OFF),
        "NIM_PER_REQ_METRICS_ENABLE": Answer("answers carry no metrics; gemma4-nim bench measures them", as_it_is=_OFF),
        "NIM_OTEL_METRICS_EXPORTER": Answer(_OTEL, as_it_is=_OFF),
        "NIM_DISABLE_LOG_REQUESTS": Answer(_LOGGED, as_it_is=_ON),
        "NIM_CAPTURE_ENABLE": Answer(_LOGGED, as_it_is=_OFF),
        "NIM_CAPTURE_ARGS": Answer(_LOGGED),
        "NIM_TELEMETRY_MODE": Answer("nothing is ever reported to anyone; remove it", as_it_is=_OFF),
        "NIM_MANIFEST_ALLOW_UNSAFE": Answer("set NIM_MANIFEST_PATH to a manifest of your own", as_it_is=_OFF),
        "NIM_MODEL_TYPE": Answer("set NIM_MODEL_VARIANT or NIM_MODEL_PROFILE"),
        "NIM_TRUST_CUSTOM_CODE": Answer(_CODE, as_it_is=_OFF),
        "NIM_TRUST_REMOTE_CODE": Answer(_CODE, as_it_is=_OFF),
        "NIM_FORCE_TRUST_REMOTE_CODE": Answer(_CODE, as_it_is=_OFF),
        "NIM_NGINX_DIR": Answer("there is no nginx; nothing has to be writable for it"),
        "NIM_PROXY_CONNECTIVITY_TARGETS": Answer("run gemma4-nim doctor, which asks the sources that are needed"),
        "NIM_MAX_VIDEOS_PER_PROMPT": Answer(_VIDEO, as_it_is=frozenset({"0"})),
        "NIM_VIDEO_PRUNING_RATE": Answer(_VIDEO, as_it_is=frozenset({"0"})),
        "NIM_MEDIA_IO_KWARGS": Answer(_KWARGS),
        "NIM_MM_PROCESSOR_KWARGS": Answer(_KWARGS),
        "NIM_DISABLE_MM_PREPROCESSOR_CACHE": Answer("set NIM_IMAGE_CACHE_BYTES=0", as_it_is=_OFF),
        "NIM_DISABLE_CHUNKED_MM_INPUT": Answer("a picture is always computed in one part; remove it", as_it_is=_ON),
        "NIM_DISABLE_RESPONSES_ROUTE": Answer("use /v1/chat/completions; there is no other route", as_it_is=_ON),
    }
)  # fmt: skip
"""NIM variables without effect here -> what to do instead."""

FAMILIES: Final = MappingProxyType({"NIM_REWARD_": Answer("Gemma 4 is no reward model; remove it", as_it_is=_OFF)})
"""The same for all variables whose names begin so."""

FOREIGN: Final = MappingProxyType(
    {
        "HF_HOME": "downloads go to NIM_CACHE_PATH",
        "MODELSCOPE_API_TOKEN": "ModelScope is no source here; use hf:// or ngc://",
        "VLLM_LOGGING_LEVEL": "set NIM_LOG_LEVEL, which holds for the engine, too",
        "SGLANG_LOG_LEVEL": "set NIM_LOG_LEVEL, which holds for the engine, too",
        "UVICORN_LOG_LEVEL": "set NIM_LOG_LEVEL",
        "OTEL_METRIC_EXPORT_INTERVAL": _OTEL,
        "VLLM_ENABLE_RESPONSES_API_STORE": "there is no route /v1/responses; use /v1/chat/completions",
    }
)
"""Variables of other programs that NIM acts on and this server does not -> what to do instead; told, never refused."""

UNTOUCHED: Final = MappingProxyType(
    {
        "CUDA_VISIBLE_DEVICES": "honoured: only these GPUs are looked at and used",
        "NVIDIA_VISIBLE_DEVICES": "honoured: as a container's runtime does",
        "NCCL_*": "handed to the engine as they are",
        "VLLM_USE_V2_MODEL_RUNNER": "handed to the engine as it is",
        "DO_NOT_TRACK": "nothing is ever reported to anyone",
        "VLLM_NO_USAGE_STATS": "handed to the engine as it is; nothing is reported to anyone",
        "OTEL_*": "read by OpenTelemetry's own library where NIM_ENABLE_OTEL is set",
        "OUTLINES_CACHE_DIR": "grammars are compiled by llguidance and need no folder",
        "TORCHINDUCTOR_CACHE_DIR": "handed to the engine as it is",
    }
)
"""Variables of other programs that need no word from us when they are set -> what becomes of them."""
