"""Variables of NVIDIA's NIM that are not settings here: other names of ours, and those that have no effect yet.

Nothing that a user sets is ignored in silence, so each is listed with what to do instead.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

ALIASES: Final = MappingProxyType(
    {
        "NIM_HTTP_API_PORT": "NIM_SERVER_PORT",
        "NIM_LOGGING_JSONL": "NIM_JSONL_LOGGING",
        "NIM_MODEL_NAME": "NIM_MODEL_PATH",
    }
)
"""Other names under which NIM containers know a setting -> our name."""

_GPU = "there is no GPU engine yet; the CPU engine needs no such setting"
_TLS = "the server speaks plain HTTP; put a TLS proxy in front of it"
_CORS = "CORS cannot be configured yet; put a proxy in front of the server"
_LORA = "LoRA adapters are not supported yet"
_DOWNLOAD = "models are not downloaded yet; point NIM_MODEL_PATH at a local file"
_TOOLS = "tool calling is always on and uses Gemma 4's own format"
_OTEL = "OpenTelemetry is not supported yet"
_MANIFEST = "there is no profile manifest yet; set NIM_MODEL_PATH or NIM_MODEL_PROFILE"
_REMOTE_CODE = "models never bring code of their own; GGUF files hold data only"
_VIDEO = "video input is not supported yet"
_REUSE = "prompt prefixes are always reused"

_REASONS: Final[dict[str, tuple[str, ...]]] = {
    _GPU: (
        "NIM_DISABLE_CUDA_GRAPH", "NIM_ENABLE_CHUNKED_PREFILL", "NIM_ENABLE_KV_CACHE_HOST_OFFLOAD",
        "NIM_GPU_MEMORY_HEADROOM_GIB", "NIM_GPU_MEMORY_UTILIZATION", "NIM_GPU_MEM_FRACTION", "NIM_KVCACHE_PERCENT",
        "NIM_KV_CACHE_HOST_MEM_FRACTION", "NIM_KV_CACHE_PERCENT", "NIM_LOW_MEMORY_MODE", "NIM_MAX_NUM_BATCHED_TOKENS",
        "NIM_NUM_COMPUTE_NODES", "NIM_NUM_KV_CACHE_SEQ_LENS", "NIM_PIPELINE_PARALLEL_SIZE", "NIM_SCHEDULER_POLICY",
        "NIM_TENSOR_PARALLEL_SIZE", "NIM_UNIFIED_MEMORY_HOST_RESERVE_GIB",
    ),
    _TLS: ("NIM_SSL_CA_CERTS_PATH", "NIM_SSL_CERTS_PATH", "NIM_SSL_CERT_PATH", "NIM_SSL_KEY_PATH", "NIM_SSL_MODE"),
    _CORS: (
        "NIM_CORS_ALLOW_HEADERS", "NIM_CORS_ALLOW_METHODS", "NIM_CORS_ALLOW_ORIGINS", "NIM_CORS_EXPOSE_HEADERS",
        "NIM_CORS_MAX_AGE",
    ),
    _LORA: (
        "NIM_MAX_CPU_LORAS", "NIM_MAX_GPU_LORAS", "NIM_MAX_LORA_RANK", "NIM_PEFT_API_TIMEOUT_SECS",
        "NIM_PEFT_REFRESH_INTERVAL", "NIM_PEFT_SOURCE",
    ),
    _DOWNLOAD: (
        "NIM_CACHE_PROBE_TIMEOUT", "NIM_CUSTOM_MODEL_NAME", "NIM_DISABLE_MODEL_DOWNLOAD", "NIM_FT_MODEL",
        "NIM_PROXY_CONNECTIVITY_TARGETS", "NIM_REPOSITORY_OVERRIDE", "NIM_SDK_USE_NATIVE_TLS",
    ),
    _TOOLS: (
        "NIM_CHAT_TEMPLATE", "NIM_ENABLE_AUTO_TOOL_CHOICE", "NIM_TOOL_CALL_PARSER", "NIM_TOOL_PARSER_PLUGIN",
    ),
    _OTEL: (
        "NIM_ENABLE_OTEL", "NIM_OTEL_EXPORTER_OTLP_ENDPOINT", "NIM_OTEL_METRICS_EXPORTER", "NIM_OTEL_SERVICE_NAME",
        "NIM_OTEL_TRACES_EXPORTER",
    ),
    _MANIFEST: (
        "NIM_MANIFEST_ALLOW_UNSAFE", "NIM_MANIFEST_PATH", "NIM_MANIFEST_PROFILE", "NIM_MODEL_PRECISION",
        "NIM_MODEL_TYPE", "NIM_MODEL_VARIANT", "NIM_PERF_PROFILE", "NIM_TAGS_SELECTOR",
    ),
    _REMOTE_CODE: ("NIM_FORCE_TRUST_REMOTE_CODE", "NIM_TRUST_CUSTOM_CODE", "NIM_TRUST_REMOTE_CODE"),
    _VIDEO: ("NIM_MAX_VIDEOS_PER_PROMPT", "NIM_VIDEO_PRUNING_RATE"),
    _REUSE: ("NIM_ENABLE_KV_CACHE_REUSE",),
    "speculative decoding is not supported yet": ("NIM_DRAFT_MODEL_PATH", "NIM_NUM_SPECULATIVE_TOKENS"),
    "grammars are compiled by llguidance, always": ("NIM_GUIDED_DECODING_BACKEND",),
    "seeded and greedy requests are always repeatable": ("NIM_FORCE_DETERMINISTIC",),
    "there is no engine command line; each setting has a variable of its own": ("NIM_PASSTHROUGH_ARGS",),
    "health routes share the server's port": ("NIM_HEALTH_PORT",),
    "there is no nginx in front of the server": ("NIM_NGINX_DIR",),
    "prompts are never logged": ("NIM_CAPTURE_ARGS", "NIM_CAPTURE_ENABLE", "NIM_DISABLE_LOG_REQUESTS"),
    "nothing is ever reported to anyone": ("NIM_TELEMETRY_MODE",),
    "set NIM_IMAGE_TOKENS for the token budget of pictures": ("NIM_MEDIA_IO_KWARGS", "NIM_MM_PROCESSOR_KWARGS"),
    "set NIM_IMAGE_CACHE_BYTES=0 instead": ("NIM_DISABLE_MM_PREPROCESSOR_CACHE",),
    "not supported yet": (
        "NIM_DISABLE_CHUNKED_MM_INPUT", "NIM_DISABLE_RESPONSES_ROUTE", "NIM_ENABLE_PROMPT_LOGPROBS",
        "NIM_MIDDLEWARE_CONFIG_PATH", "NIM_PER_REQ_METRICS_ENABLE", "NIM_SAGEMAKER_MODE", "NIM_STREAM_INTERVAL",
        "NIM_TOKENIZER_MODE",
    ),
}  # fmt: skip

NOT_SUPPORTED: Final = MappingProxyType({name: reason for reason, names in _REASONS.items() for name in names})
"""NIM variables without effect here -> why, or what to do instead."""
