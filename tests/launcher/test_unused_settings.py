"""Settings that a start has no use for because of what else is set: each is named, and with strictness refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.environment import load_settings
from config.settings import variables
from launcher import unused_settings as module
from launcher.errors import ExitCode, LaunchError
from launcher.model import find_model
from launcher.unused_settings import unused_settings
from tests.fakes import console

DEMO = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe"


def _named(environ: dict[str, str]) -> dict[str, str]:
    """Return the variables that are named, with the reasons."""
    loaded = load_settings(environ=environ)
    lines = unused_settings(loaded.settings, loaded.variables)
    return dict(line.split(" has no effect: ") for line in lines)


@pytest.mark.parametrize(
    ("environ", "expected", "reason"),
    [
        (
            {"NIM_MODEL_PATH": "x.gguf", "NIM_MODEL_PROFILE": "y", "NIM_MODEL_PRECISION": "fp8"},
            {"NIM_MODEL_PROFILE", "NIM_MODEL_PRECISION"},
            "NIM_MODEL_PATH names the model",
        ),
        ({"NIM_MODEL_PATH": "hf://a/b", "NIM_TAGS_SELECTOR": "tp=2"}, {"NIM_TAGS_SELECTOR"}, "NIM_MODEL_URI names"),
        ({"NIM_MODEL_PROFILE": "demo-moe", "NIM_MODEL_VARIANT": "31b"}, {"NIM_MODEL_VARIANT"}, "=demo-moe names"),
        ({"NIM_MODEL_PRECISION": "fp8", "NIM_MODEL_PROFILE": "vllm"}, set(), ""),
        ({"NIM_TRITON_PYTHON": "/x"}, {"NIM_TRITON_PYTHON"}, "NIM_ENGINE_TRANSPORT=triton"),
        ({"NIM_TRITON_PYTHON": "/x", "NIM_ENGINE_TRANSPORT": "triton"}, set(), ""),
        ({"NIM_ENGINE_TLS_CA": "/x"}, {"NIM_ENGINE_TLS_CA"}, "NIM_ENGINE_ENDPOINTS names none"),
        (
            {"NIM_ENGINE_ENDPOINTS": "a:1", "NIM_ENGINE_TLS_CA": "/x", "NIM_MODEL_PATH": "m", "NIM_MAX_NUM_SEQS": "4"},
            {"NIM_MAX_NUM_SEQS"},
            "started elsewhere",
        ),
        ({"NIM_SERVER_PORT": "9000", "NIM_MAX_MODEL_LEN": "1024", "NIM_MODEL_PATH": "m"}, set(), ""),
    ],
)
def test_each_is_named_with_the_reason(environ: dict[str, str], expected: set[str], reason: str) -> None:
    """The line says which other setting makes it useless."""
    found = _named(environ)

    assert found.keys() == expected
    assert all(reason in text for text in found.values())


def test_a_bundle_is_compared_with_the_precision(tmp_path: Path) -> None:
    """There it does have an effect, so nothing is said."""
    (tmp_path / "manifest.json").touch()

    assert not _named({"NIM_MODEL_PATH": str(tmp_path), "NIM_MODEL_PRECISION": "fp8"})


def test_the_names_are_settings() -> None:
    """A name that is renamed elsewhere must not stay here unnoticed."""
    assert variables().keys() >= {*module._AMONG_PROFILES, *module._OF_AN_ENGINE}


def test_a_start_warns_and_a_strict_one_refuses(tmp_path: Path) -> None:
    """Status 0 with a warning; with NIM_STRICT_CONFIG status 64."""
    given = {"NIM_MODEL_PATH": str(DEMO), "NIM_PERF_PROFILE": "latency", "NIM_CACHE_PATH": str(tmp_path)}
    done = console.run("nim-serve", "--dry-run", variables=given)
    assert done.returncode == 0
    assert "warning: NIM_PERF_PROFILE has no effect" in done.stderr
    done = console.run("nim-serve", "--dry-run", variables=given | {"NIM_STRICT_CONFIG": "1"})
    console.fails_well(done, ExitCode.BAD_SETTINGS, "NIM_PERF_PROFILE has no effect", "NIM_STRICT_CONFIG is set")


@pytest.mark.parametrize("environ", [{}, {"NIM_MODEL_PATH": str(DEMO)}])
def test_an_engine_that_was_asked_for_is_taken_or_refused(environ: dict[str, str]) -> None:
    """``NIM_ENGINE`` counts for the demo model, too, and never gives another engine."""
    model = load_settings(environ=environ | {"NIM_ENGINE": "vllm"}).settings.model
    found = find_model(model, engines=frozenset({"vllm"}))
    assert (found.core, found.checkpoint, found.names[0]) == ("vllm", DEMO, "demo-moe")
    with pytest.raises(LaunchError, match="NIM_ENGINE=vllm is not installed here"):
        find_model(model, engines=frozenset({"llama_cpp"}))


def test_a_gguf_file_is_nothing_for_a_gpu_engine() -> None:
    """The file and the engine are named."""
    model = load_settings(environ={"NIM_MODEL_PATH": str(DEMO / "model.gguf"), "NIM_ENGINE": "vllm"}).settings.model
    with pytest.raises(LaunchError, match=r"NIM_ENGINE=vllm loads checkpoints .*model\.gguf is a GGUF file"):
        find_model(model)
