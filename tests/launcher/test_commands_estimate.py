"""``estimate`` for machines that are not here, and ``explain`` for one profile on this one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config.manifest import load_manifest
from launcher.errors import ExitCode
from tests.fakes import console

CPU_PROFILE = "llama_cpp-26b-a4b-q4_k_m-tp1-pp1-latency"
GPU_PROFILE = "vllm-31b-fp8-tp2-pp1-latency"


def _estimate(*arguments: str) -> dict[str, Any]:
    done = console.run("gemma4-nim", "estimate", "--json", *arguments)
    assert done.returncode == ExitCode.OK, done.stderr
    return json.loads(done.stdout)


def test_two_l40s_hold_the_31b_with_128k() -> None:
    """The example of the manual: fp8 over both GPUs, the whole context, and figures that add up."""
    record = _estimate("--gpu", "2xL40S", "--context", "128k", "--model", "31b")
    plan = record["plan"]

    assert record["fits"] is True
    assert plan["profile"]["name"] == GPU_PROFILE
    assert plan["context_tokens"] == plan["wanted_context_tokens"] == 131_072
    assert [gpu["name"] for gpu in plan["gpus"]] == ["NVIDIA L40S", "NVIDIA L40S"]
    memory = plan["memory_bytes"]
    assert sum(size for name, size in memory.items() if name != "total") == memory["total"]
    assert memory["total"] <= plan["memory_budget_bytes"] <= plan["memory_available_bytes"]
    assert plan["cache_tokens"] == plan["full_context_sequences"] * plan["context_tokens"]
    assert plan["why"]
    assert record["alternatives"]
    assert record["would_fit"] == {}


def test_short_memory_says_what_would_do() -> None:
    """Two small GPUs get a shorter context, and the number of them that would hold the wanted one is named."""
    record = _estimate("--gpu", "2xL4", "--context", "128k", "--model", "31b")

    assert record["plan"]["context_tokens"] < 131_072
    (words,) = record["would_fit"]
    assert words.endswith("xNVIDIA L4")
    assert int(words.partition("x")[0]) > 2
    assert record["would_fit"][words]["context_tokens"] == 131_072


def test_estimate_for_people() -> None:
    """Text names the profile, the context, each part of the memory and the command to serve it."""
    done = console.run("gemma4-nim", "estimate", "-g", "2xL40S", "-c", "128k", "-m", "31b")

    assert done.returncode == ExitCode.OK
    for words in (
        "it fits",
        GPU_PROFILE,
        "131072 tokens",
        "weights",
        "KV cache",
        f"NIM_MODEL_PROFILE={GPU_PROFILE} nim-serve",
    ):
        assert words in done.stdout
    assert "\x1b" not in done.stdout


def test_machine_without_a_gpu() -> None:
    """Main memory alone decides for the CPU engine."""
    record = _estimate("--memory", "24GiB", "--context", "8192")

    assert record["plan"]["engine"] == "llama_cpp"
    assert record["plan"]["gpus"] == []
    assert record["plan"]["memory_available_bytes"] == 24 * 2**30


def test_settings_of_this_machine_do_not_count() -> None:
    """A variable that is set here says nothing about another machine."""
    variables = {"NIM_MAX_MODEL_LEN": "1024", "NIM_MODEL_PROFILE": "nonsense", "CUDA_VISIBLE_DEVICES": ""}
    done = console.run("gemma4-nim", "estimate", "--json", "--gpu", "H100", variables=variables)

    assert json.loads(done.stdout)["plan"]["context_tokens"] == 262_144


def test_engine_and_precision_can_be_asked_for() -> None:
    """--engine and --precision narrow the choice."""
    record = _estimate("--gpu", "B200", "--engine", "vllm", "--precision", "fp8")

    assert record["plan"]["profile"]["name"].startswith("vllm-26b-a4b-fp8-tp1")


def test_what_does_not_fit_is_refused() -> None:
    """A machine that is too small ends with 69, a reason and a remedy; as JSON, too."""
    text = console.run("gemma4-nim", "estimate", "--memory", "4")
    record = console.run("gemma4-nim", "estimate", "--memory", "4", "--json")

    console.fails_well(text, ExitCode.NO_USABLE_HARDWARE, "no profile can run")
    assert record.returncode == ExitCode.NO_USABLE_HARDWARE
    assert json.loads(record.stdout)["fits"] is False
    assert json.loads(record.stdout)["remedy"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gpu", "B2000"], "NVIDIA B200"),
        (["--gpu", "0xL4"], "must be from 1 to"),
        (["--context", "lots"], "--context 'lots' is no number of tokens"),
        (["--memory", "big"], "--memory 'big' is no amount of memory"),
        (["--model", "27b"], "NIM_MODEL_VARIANT"),
        (["--engine", "sglang"], "use llama_cpp, vllm, tensorrt_llm"),
        (["--context", "999999"], "262144"),
    ],
)
def test_bad_words_are_named(arguments: list[str], words: str) -> None:
    """What cannot be understood is refused with what can."""
    console.fails_well(console.run("gemma4-nim", "estimate", *arguments), ExitCode.BAD_SETTINGS, words)


def test_explain_by_id_and_by_name() -> None:
    """The same profile by its name and by the beginning of its id: what it is, its files and its memory."""
    (profile,) = (one for one in load_manifest().profiles if one.name == CPU_PROFILE)
    by_name = json.loads(console.run("gemma4-nim", "explain", CPU_PROFILE, "--json").stdout)
    by_id = json.loads(console.run("gemma4-nim", "explain", profile.id[:12], "--json").stdout)

    assert by_name["id"] == by_id["id"] == profile.id
    assert len(by_name["files"]) == 2
    assert by_name["download_bytes"] == profile.download_size
    assert by_name["verdict"] in ("selected", "runnable", "low-memory")
    memory = by_name["memory_bytes"]
    assert sum(size for name, size in memory.items() if name != "total") == memory["total"]


def test_explain_says_why_not() -> None:
    """A profile that cannot run here has the reason, the remedy, and what it would take."""
    done = console.run("gemma4-nim", "explain", GPU_PROFILE)

    assert done.returncode == ExitCode.OK, done.stderr
    for words in (
        GPU_PROFILE,
        "2 GPUs",
        "cannot run: the engine vllm is not in this image",
        "remedy",
        "KV cache",
        "hf://",
    ):
        assert words in done.stdout


def test_unknown_or_ambiguous_profile_is_refused() -> None:
    """Names that stand for none or for several are refused with the nearest ones."""
    unknown = console.run("gemma4-nim", "explain", "vllm-31b-fp8-tp2")
    several = console.run("gemma4-nim", "explain", "vllm-fp8-tp2-pp1")

    console.fails_well(unknown, ExitCode.BAD_SETTINGS, "did you mean")
    console.fails_well(several, ExitCode.BAD_SETTINGS, "stands for", "name one")


def test_a_wish_that_no_machine_meets_has_one_status() -> None:
    """A context beyond the model's is a bad setting with and without --json, and a bad variant says where it stands."""
    arguments = ("estimate", "--gpu", "1xL4", "--context", "999k")
    console.fails_well(console.run("gemma4-nim", *arguments), ExitCode.BAD_SETTINGS, "NIM_MAX_MODEL_LEN=1022976")
    assert console.run("gemma4-nim", *arguments, "--json").returncode == ExitCode.BAD_SETTINGS
    done = console.run("gemma4-nim", "estimate", "--model", "5b")
    console.fails_well(done, ExitCode.BAD_SETTINGS, "NIM_MODEL_VARIANT='5b' from the command line")
