"""With which arguments the library is started, from a runtime or from a bundle, and what keeps it from starting."""

from __future__ import annotations

import json
import sys

import pytest
import yaml

from engine.cores import load_core
from engine.errors import EngineLoadError
from engine.tensorrt_llm.arguments import cache_environment, graph_sizes, llm_arguments, starting_arguments

EXPECTED = {
    "dtype": "auto",
    "tensor_parallel_size": 2,
    "trust_remote_code": False,
    "attn_backend": "TRTLLM",
    "max_batch_size": 48,
    "max_num_tokens": 8192,
    "max_seq_len": 32768,
    "max_beam_width": 1,
    "encoder_max_num_tokens": 10080,
    "enable_chunked_prefill": True,
    "guided_decoding_backend": "llguidance",
    "kv_cache_config": {"enable_block_reuse": False, "free_gpu_memory_fraction": 0.85, "dtype": "auto"},
    "cuda_graph_config": {"enable_padding": True, "batch_sizes": [1, 2, 4, 8, 16, 32, 48]},
    "stream_interval": 1,
    "num_postprocess_workers": 0,
    "enable_autotuner": True,
    "enable_iter_perf_stats": True,
    "env_overrides": {"TRTLLM_NO_USAGE_STATS": "1"},
}


@pytest.fixture
def large(runtime_of):
    return runtime_of(tensor_parallel=2, context_tokens=32768, max_sequences=48, gpu_memory_fraction=0.85)


def test_all_arguments_are_chosen(large):
    """The whole mapping, as a bundle freezes it; it is plain data."""
    arguments = llm_arguments(large)
    assert arguments.pop("model") == str(large.checkpoint_path)
    assert arguments == EXPECTED
    assert yaml.safe_load(yaml.safe_dump(arguments)) == EXPECTED


def test_small_and_odd_limits(runtime_of):
    """A step always holds an image block and the whole batch; graphs end with the largest batch."""
    assert llm_arguments(runtime_of(context_tokens=512))["max_num_tokens"] == 2048
    assert llm_arguments(runtime_of(max_sequences=9000))["max_num_tokens"] == 9000
    assert [graph_sizes(count) for count in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8]]


@pytest.mark.parametrize(
    ("changes", "named"), [({"draft_path": "/draft"}, "draft"), ({"precision": "int4"}, "precision 'int4'")]
)
def test_what_the_library_cannot_do_is_refused(runtime_of, changes, named):
    """By name, before anything is loaded."""
    with pytest.raises(EngineLoadError, match=named):
        llm_arguments(runtime_of(**changes))


def test_caches_lie_below_one_folder(tmp_path):
    """Every cache of the library and its kernels, and the autotuner's file."""
    variables = cache_environment(tmp_path)
    assert all(value.startswith(f"{tmp_path}/") for value in variables.values())
    assert {"FLASHINFER_WORKSPACE_BASE", "TLLM_AUTOTUNER_CACHE_PATH"} <= set(variables)


@pytest.fixture
def bundle(tmp_path, large):
    """A function that writes a bundle's frozen arguments, changed, and returns the runtime that uses them."""

    def write(**changes):
        content = {**EXPECTED, **changes}
        (tmp_path / "llm_args.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return large.model_copy(update={"bundle_path": tmp_path})

    return write


def test_a_bundle_starts_with_its_frozen_arguments(bundle, large, tmp_path):
    """The file's values, not those of today's rules; its checkpoint lies in it, or is the runtime's."""
    frozen = starting_arguments(bundle(max_num_tokens=4096, attn_backend="FLASHINFER"))
    assert (frozen["max_num_tokens"], frozen["attn_backend"]) == (4096, "FLASHINFER")
    assert frozen["model"] == str(large.checkpoint_path)
    assert starting_arguments(bundle(model="checkpoint"))["model"] == str(tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"max_seq_len": 4096}, "max_seq_len is 4096, but this start needs 32768"),
        ({"max_batch_size": 8}, "max_batch_size is 8, but this start needs 48"),
        ({"tensor_parallel_size": 1}, "tensor_parallel_size is 1, but this start needs 2"),
        ({"guided_decoding_backend": "xgrammar"}, "guided_decoding_backend is xgrammar"),
        ({"num_postprocess_workers": 2}, "num_postprocess_workers is 2"),
        ({"kv_cache_config": {}}, "enable_block_reuse must be false"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(bundle, changes, difference):
    """The argument and both values are named."""
    with pytest.raises(EngineLoadError, match=difference):
        starting_arguments(bundle(**changes))


@pytest.mark.parametrize(
    ("content", "named"), [(None, "cannot be read"), ("a: [", "is no YAML"), ("- 1", "does not map")]
)
def test_a_damaged_bundle_is_named(large, tmp_path, content, named):
    """A missing file, one that is no YAML, and one of another shape."""
    if content is not None:
        (tmp_path / "llm_args.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(EngineLoadError, match=named):
        starting_arguments(large.model_copy(update={"bundle_path": tmp_path}))


def test_the_library_gets_its_own_classes(run, runtime_of, library):
    """Nested arguments are the library's objects, with the same values; limits say what is served."""

    async def body(core, engine):
        return core.limits(), engine.arguments

    limits, arguments = run(body)
    assert type(arguments["kv_cache_config"]) is library.api.KvCacheConfig
    assert arguments["kv_cache_config"].given == llm_arguments(runtime_of())["kv_cache_config"]
    assert type(arguments["cuda_graph_config"]) is library.api.DecodeCudaGraphConfig
    assert (limits.core, limits.model, limits.context_tokens, limits.vision) == ("tensorrt_llm", "demo-moe", 512, True)


def test_what_keeps_the_library_from_loading_is_one_line(library, runtime_of, monkeypatch):
    """Another release, and any error of its own, with the first line of the reason."""
    monkeypatch.setattr(library, "load_error", RuntimeError("CUDA out of memory\ntrace"))
    with pytest.raises(EngineLoadError, match=r"demo-moe: CUDA out of memory$"):
        library.core.TensorRtLlmCore(runtime_of())
    monkeypatch.setattr(library.package, "__version__", "1.2.1")
    with pytest.raises(EngineLoadError, match=r"1\.2\.1 is installed"):
        library.core.TensorRtLlmCore(runtime_of())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"text_config": {}}, "damaged: KeyError"),
        (None, "cannot be read"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(library, runtime_of, tmp_path, change, named):
    """Before the library is started."""
    config = json.loads((runtime_of().checkpoint_path / "config.json").read_text(encoding="utf-8"))
    if change is not None:
        (tmp_path / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(EngineLoadError, match=named):
        library.core.TensorRtLlmCore(runtime_of(checkpoint_path=tmp_path))


@pytest.mark.parametrize("precision", ["fp8", "nvfp4"])
def test_quantised_weights_are_not_made_while_loading(library, runtime_of, precision):
    """A precision that the checkpoint is not stored in is refused with what to do."""
    with pytest.raises(EngineLoadError, match="quantise it first"):
        library.core.TensorRtLlmCore(runtime_of(precision=precision))


def test_without_the_library_the_engine_says_so(runtime_of, monkeypatch):
    """An image without TensorRT-LLM names what is missing."""
    monkeypatch.setitem(sys.modules, "tensorrt_llm", None)
    for name in ("engine.tensorrt_llm.library", "engine.tensorrt_llm.core"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(EngineLoadError, match="tensorrt_llm is not installed here"):
        load_core(runtime_of())
