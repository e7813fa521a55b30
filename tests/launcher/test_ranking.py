"""What is known of engines on GPUs, and the order in which profiles are preferred: docs/profiles.md in tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.manifest import Profile, load_manifest
from config.variants import find_variant
from launcher.plan.ranking import CRITERIA, Ability, Support, ability, rank, rank_on_cpu, useful_parallelism

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"
PROFILES = {profile.name: profile for profile in load_manifest().profiles}


def _profile(
    engine: str = "vllm", precision: str = "fp8", count: int = 1, variant: str = "31b", end: str = "latency"
) -> Profile:
    return PROFILES[f"{engine}-{variant}-{precision}-tp{count}-pp1-{end}"]


@pytest.mark.parametrize(
    ("engine", "capability", "support"),
    [
        ("tensorrt_llm", (10, 0), Support.PREFERRED),
        ("tensorrt_llm", (10, 3), Support.PREFERRED),
        ("tensorrt_llm", (12, 0), Support.FALLBACK),
        ("tensorrt_llm", (12, 1), Support.FALLBACK),
        ("tensorrt_llm", (11, 0), Support.UNPROVEN),
        ("tensorrt_llm", (9, 0), Support.UNPROVEN),
        ("tensorrt_llm", (8, 9), Support.UNPROVEN),
        ("tensorrt_llm", (8, 0), Support.UNPROVEN),
        ("tensorrt_llm", (7, 5), Support.NONE),
        ("vllm", (12, 1), Support.WORKS),
        ("vllm", (10, 0), Support.WORKS),
        ("vllm", (9, 0), Support.WORKS),
        ("vllm", (8, 0), Support.WORKS),
        ("vllm", (7, 5), Support.NONE),
    ],
)
def test_engines_run_where_they_were_shown_to(engine: str, capability: tuple[int, int], support: Support) -> None:
    """TensorRT-LLM is for SM100 and SM103, vLLM for everything from compute capability 8.0 on."""
    found = ability(_profile(engine, "bf16"), capability)

    assert found.support is support
    assert bool(found.reason) == (support not in (Support.WORKS, Support.PREFERRED))


@pytest.mark.parametrize(("precision", "first"), [("bf16", (8, 0)), ("fp8", (8, 9)), ("nvfp4", (10, 0))])
def test_precision_is_native_from_its_capability_on(precision: str, first: tuple[int, int]) -> None:
    """bf16 from 8.0, fp8 from 8.9, nvfp4 from 10.0; below, vLLM emulates."""
    for capability in ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)):
        found = ability(_profile("vllm", precision), capability)
        assert found.native == (capability >= first)
        assert found.support is Support.WORKS


def test_only_vllm_emulates() -> None:
    """TensorRT-LLM without the tensor cores for a precision is refused with both figures."""
    found = ability(_profile("tensorrt_llm", "nvfp4"), (9, 0))

    assert found.support is Support.NONE
    assert found.reason == "nvfp4 needs compute capability 10.0, these GPUs have 9.0"


@pytest.mark.parametrize(
    ("name", "capability", "why"),
    [
        ("vllm-26b-a4b-fp8-tp2-pp1-latency", (8, 0), "on 2 GPUs each has 352"),
        ("vllm-26b-a4b-nvfp4-tp2-pp1-latency", (10, 0), "vllm-project/vllm#39595"),
        ("vllm-26b-a4b-fp8-tp8-pp1-latency", (9, 0), "no multiples of 16"),
        ("tensorrt_llm-31b-fp8-tp1-pp1-latency", (10, 0), "compressed-tensors"),
    ],
)
def test_known_trouble_is_unproven_with_its_reason(name: str, capability: tuple[int, int], why: str) -> None:
    """What is known to fail upstream, or was never shown, says so."""
    found = ability(PROFILES[name], capability)

    assert found.support is Support.UNPROVEN
    assert why in found.reason


def test_dense_models_are_split_in_every_precision() -> None:
    """The trouble with narrow experts is the MoE's alone."""
    for precision in ("fp8", "nvfp4"):
        for count in (2, 4, 8):
            assert ability(_profile("vllm", precision, count), (8, 6)).support is Support.WORKS


def _order(
    profile: Profile, context: int = 131_072, *, linked: bool = True, capability: tuple[int, int] = (9, 0)
) -> tuple[int, ...]:
    return rank(profile, ability(profile, capability), context, linked=linked)


def test_each_criterion_goes_before_the_next() -> None:
    """Whatever is better in an earlier criterion wins over everything in later ones."""
    cpu = rank_on_cpu(PROFILES["llama_cpp-31b-q4_k_m-tp1-pp1-latency"], 262_144)
    worst_gpu = _order(_profile("vllm", "nvfp4", 8, end="throughput"), 2048, capability=(8, 0))
    assert worst_gpu > cpu

    assert _order(_profile("vllm", "nvfp4"), 65_536, capability=(8, 0)) > _order(
        _profile("vllm", "bf16"), 32_768, capability=(8, 0)
    )
    assert _order(_profile("vllm", "fp8", end="throughput")) > _order(_profile("vllm", "bf16"))
    blackwell = (10, 0)
    assert _order(_profile("vllm", "nvfp4"), capability=blackwell) > _order(
        _profile("tensorrt_llm", "bf16"), capability=blackwell
    )
    assert _order(_profile("tensorrt_llm", "nvfp4", end="throughput"), capability=blackwell) > _order(
        _profile("vllm", "nvfp4"), capability=blackwell
    )
    assert _order(_profile("vllm", "fp8", 8)) > _order(_profile("vllm", "fp8", 1, end="throughput"))


def test_precisions_go_from_small_native_to_emulated() -> None:
    """Native nvfp4, fp8, bf16; then emulated fp8 before emulated nvfp4."""
    on_blackwell = [_order(_profile("vllm", name), capability=(12, 0)) for name in ("nvfp4", "fp8", "bf16")]
    on_ampere = [_order(_profile("vllm", name), capability=(8, 0)) for name in ("bf16", "fp8", "nvfp4")]

    assert on_blackwell == sorted(on_blackwell, reverse=True)
    assert on_ampere == sorted(on_ampere, reverse=True)


@pytest.mark.parametrize(
    ("variant", "end", "linked", "order"),
    [
        ("31b", "latency", True, [4, 2, 1, 8]),
        ("26b-a4b", "latency", True, [2, 1, 4, 8]),
        ("31b", "latency", False, [1, 2, 4, 8]),
        ("31b", "throughput", True, [1, 2, 4, 8]),
    ],
)
def test_number_of_gpus_follows_link_and_objective(variant: str, end: str, linked: bool, order: list[int]) -> None:
    """Linked GPUs shorten answers up to the number of the cache's heads; otherwise the fewest are best."""
    counts = sorted(
        (1, 2, 4, 8),
        key=lambda count: _order(_profile("vllm", "bf16", count, variant, end), linked=linked if count > 1 else True),
        reverse=True,
    )

    assert counts == order
    assert useful_parallelism(find_variant(variant)) in (2, 4)


def test_document_lists_the_criteria_in_their_order() -> None:
    """The numbered table of docs/profiles.md is the order of the code."""
    words = re.findall(r"^\| \d \| ([A-Z][a-z ]+) ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    named = {"Number of": "parallelism", "Number of GPUs": "parallelism"}

    assert [named.get(word.strip(), word.strip().lower()) for word in words] == list(CRITERIA)
    assert len(_order(_profile())) == len(CRITERIA)
    assert Ability(Support.WORKS, native=True).reason == ""
