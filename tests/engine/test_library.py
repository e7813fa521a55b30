"""The declared C structures and functions against the installed wheel: a version bump must not pass silently."""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform

import pytest

from engine.errors import EngineLoadError
from engine.llama_cpp import library as library_module
from engine.llama_cpp.library import PACKAGE, SIGNATURES, SUPPORTED_VERSION, find_library, load_library
from engine.llama_cpp.structs import Batch, ContextParams, ModelParams, VisionParams

SPARE_BYTES = 256
RETURNING = {
    "llama_model_default_params": (ModelParams, ()),
    "llama_context_default_params": (ContextParams, ()),
    "llama_batch_get_one": (Batch, (0, 5)),
    "mtmd_context_params_default": (VisionParams, ()),
}

MODEL_DEFAULTS = {
    "n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "main_gpu": 0, "vocab_only": False,
    "check_tensors": False, "use_extra_bufts": True, "no_host": False, "no_alloc": False, "load_mtp": False,
}  # fmt: skip
CONTEXT_DEFAULTS = {
    "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_rs_seq": 0, "n_outputs_max": 0,
    "n_outputs_max_per_seq": 1, "n_threads": 4, "n_threads_batch": 4, "ctx_type": 0, "rope_scaling_type": -1,
    "pooling_type": -1, "attention_type": -1, "flash_attn_type": -1, "rope_freq_base": 0.0, "rope_freq_scale": 0.0,
    "yarn_ext_factor": -1.0, "yarn_attn_factor": -1.0, "yarn_beta_fast": -1.0, "yarn_beta_slow": -1.0,
    "yarn_orig_ctx": 0, "defrag_thold": -1.0, "type_k": 1, "type_v": 1, "moe_cache_size": 0, "embeddings": False,
    "offload_kqv": True, "no_perf": True, "op_offload": True, "swa_full": True, "kv_unified": False, "n_samplers": 0,
}  # fmt: skip
VISION_DEFAULTS = {
    "use_gpu": True, "print_timings": True, "n_threads": 4, "media_marker": b"<__media__>", "flash_attn_type": -1,
    "warmup": True, "image_min_tokens": -1, "image_max_tokens": -1, "batch_max_tokens": 1024,
}  # fmt: skip


def bytes_written(name: str, size: int, arguments: tuple[int, ...], fill: int) -> bytes:
    """Call a function that returns a structure through a hidden pointer, on a buffer filled with ``fill``."""
    function = ctypes.CDLL(str(find_library()))[name]  # a fresh object: its signature is ours to set
    function.restype = ctypes.c_void_p
    kinds = (ctypes.c_void_p, ctypes.c_int32)[: len(arguments)]
    function.argtypes = [ctypes.c_void_p, *kinds]
    buffer = (ctypes.c_ubyte * (size + SPARE_BYTES))(*([fill] * (size + SPARE_BYTES)))
    function(ctypes.addressof(buffer), *arguments)
    return bytes(buffer)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the hidden pointer is the first argument on x86-64 only")
@pytest.mark.parametrize("name", RETURNING)
def test_structures_have_the_size_that_the_library_writes(name):
    """The library fills exactly the declared structure: up to its last field, and not one byte behind it."""
    structure, arguments = RETURNING[name]
    size = ctypes.sizeof(structure)
    low, high = (bytes_written(name, size, arguments, fill) for fill in (0x55, 0xAA))
    written = [place for place, (a, b) in enumerate(zip(low, high, strict=True)) if a == b]
    last = structure._fields_[-1][0]
    descriptor = getattr(structure, last)
    assert written[-1] == descriptor.offset + descriptor.size - 1
    assert written[-1] < size


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("llama_model_default_params", MODEL_DEFAULTS),
        ("llama_context_default_params", CONTEXT_DEFAULTS),
        ("mtmd_context_params_default", VISION_DEFAULTS),
    ],
)
def test_defaults_stand_where_they_are_declared(name, defaults):
    """Every field reads as the default that the library's source gives it; pointers are null."""
    params = getattr(load_library(), name)()
    for field, kind in params._fields_:
        value = getattr(params, field)
        assert value == defaults[field] if field in defaults else value is None, (field, kind, value)


def test_every_function_exists():
    """All symbols that the engine calls are exported."""
    library = ctypes.CDLL(str(find_library()))
    assert [name for name in SIGNATURES if not hasattr(library, name)] == []


def test_the_installed_version_is_the_checked_one():
    """The pin and the constant agree."""
    assert importlib.metadata.version(PACKAGE) == SUPPORTED_VERSION


def test_another_version_is_refused(monkeypatch):
    """A wheel whose layouts nobody checked is not loaded."""
    monkeypatch.setattr(library_module, "SUPPORTED_VERSION", "1.0.0")
    with pytest.raises(EngineLoadError, match=r"1\.0\.0 only"):
        find_library()


def test_a_missing_package_is_named(monkeypatch):
    """Without the wheel the message says what to install."""
    monkeypatch.setattr(library_module, "PACKAGE", "no_such_package")
    with pytest.raises(EngineLoadError, match=r"no_such_package .* is not installed"):
        find_library()
