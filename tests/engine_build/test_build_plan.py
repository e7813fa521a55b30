"""The plan of a build: what is refused, what is done now, and what is left for the target."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine_build.build_plan import ON_TARGET, PLAIN_PRECISIONS, PRECISIONS, BuildPlan, BuildRequest, Step, plan_build
from engine_build.checkpoint_facts import PLAIN, CheckpointFacts
from engine_build.checksums import FileRecord
from engine_build.errors import PlanError
from engine_build.fingerprint import Fingerprint, Hardware, differences
from engine_build.frozen_arguments import engine_arguments, lasting
from engine_build.limits import Limits

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""On a busy machine an example may take seconds."""
ENGINES = ("llama_cpp", "vllm", "tensorrt_llm")
GPU = Hardware(device="NVIDIA B200", capability="10.0", count=2, driver="580.95.05")
CPU = Hardware(device="x86_64", capability="avx2 fma", count=0)
ORDER = list(Step)


def facts(quantisation: str = PLAIN, stored: str = "bf16") -> CheckpointFacts:
    """Return a checkpoint."""
    files = {"model.safetensors": FileRecord(size=1, sha256="0" * 64)}
    return CheckpointFacts("gemma", "a" * 64, files, stored, quantisation, has_vision=True)


requests = st.builds(
    BuildRequest,
    engine=st.sampled_from(ENGINES),
    precision=st.sampled_from(sorted({one for all_of in PRECISIONS.values() for one in all_of} | {"int3"})),
    checkpoint=st.builds(
        facts, st.sampled_from([PLAIN, "fp8", "nvfp4", "gptq"]), st.sampled_from(["f32", "f16", "bf16"])
    ),
    engine_version=st.sampled_from([None, "1.2.3"]),
    hardware=st.sampled_from([None, CPU, GPU]),
    arguments=st.just({"max_seq_len": 4096}),
    prebuild_only=st.booleans(),
    has_reference=st.booleans(),
)


@PATIENT
@given(requests)
def test_a_plan_is_complete_or_refused(request: BuildRequest) -> None:
    """Every request is refused, or all its steps are done once and in order, now or later, and the seal comes last."""
    try:
        plan = plan_build(request)
    except PlanError as error:
        assert error.message
        return
    together = sorted((*plan.steps, *plan.pending), key=ORDER.index)

    assert len(set(together)) == len(together)
    assert list(plan.steps) == sorted(plan.steps, key=ORDER.index)
    assert plan.steps[0] is Step.CHECK
    assert plan.steps[-1] is Step.SEAL
    assert {Step.COLD_START, Step.WARM_START, Step.GATE} <= set(together)
    assert request.prebuild_only == bool(plan.pending)
    assert request.prebuild_only == (plan.fingerprint.hardware is None)


@PATIENT
@given(requests)
def test_what_needs_the_target_is_never_done_elsewhere(request: BuildRequest) -> None:
    """With ``prebuild_only`` no step starts an engine or needs a GPU; without, an engine and its hardware are there."""
    try:
        plan = plan_build(request)
    except PlanError:
        return

    assert not (request.prebuild_only and ON_TARGET & set(plan.steps))
    if not request.prebuild_only:
        assert request.engine_version is not None
        assert request.hardware is not None
        assert request.engine == "llama_cpp" or request.hardware.count > 0


@PATIENT
@given(requests)
def test_quantised_weights_are_always_compared(request: BuildRequest) -> None:
    """No plan ends with weights of 8 bits or less that nothing unquantised was held against."""
    try:
        plan = plan_build(request)
    except PlanError:
        return
    steps = {*plan.steps, *plan.pending}

    if request.precision not in PLAIN_PRECISIONS:
        assert {Step.REFERENCE, Step.GATE} <= steps
        assert request.prebuild_only or plan.has_own_reference or request.has_reference
    assert (Step.QUANTISE in steps) == (
        request.engine != "llama_cpp"
        and request.precision in ("fp8", "nvfp4")
        and request.checkpoint.quantisation == PLAIN
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "vllm", "precision": "q8_0"}, "q8_0 is for llama_cpp"),
        ({"precision": "fp8"}, "fp8 is for vllm and tensorrt_llm"),
        ({"checkpoint": facts("fp8")}, "made from unquantised weights; gemma is fp8"),
        ({"engine": "vllm", "precision": "nvfp4", "checkpoint": facts("fp8")}, "cannot become nvfp4"),
        ({"engine_version": None}, "llama_cpp is not installed here"),
        ({"engine": "vllm", "precision": "bf16", "hardware": CPU}, "there is none here"),
        ({"engine": "vllm", "precision": "fp8", "checkpoint": facts("fp8"), "hardware": GPU}, "--reference"),
    ],
)
def test_a_refusal_says_what_would_do(changes: dict[str, object], words: str) -> None:
    """What does not go together is named, with what does."""
    usual = {
        "engine": "llama_cpp", "precision": "q8_0", "checkpoint": facts(), "engine_version": "1", "hardware": CPU,
        "arguments": {},
    }  # fmt: skip
    with pytest.raises(PlanError) as caught:
        plan_build(BuildRequest(**{**usual, **changes}))

    assert words in caught.value.message


def _plan(**changes: object) -> BuildPlan:
    usual = {
        "engine": "tensorrt_llm", "precision": "bf16", "checkpoint": facts(), "engine_version": "1.4.0",
        "hardware": GPU, "arguments": {"max_seq_len": 4096, "kv_cache_config": {"dtype": "auto"}},
    }  # fmt: skip
    return plan_build(BuildRequest(**{**usual, **changes}))


def test_one_thing_different_is_another_bundle() -> None:
    """The name of a bundle depends on everything that it was made for, and on nothing else."""
    base = _plan().fingerprint
    others = [
        base.model_copy(update={"engine": "vllm"}),
        base.model_copy(update={"engine_version": "1.4.1"}),
        base.model_copy(update={"model": "b" * 64}),
        base.model_copy(update={"precision": "fp8"}),
        base.model_copy(update={"arguments": {"max_seq_len": 8192}}),
        *(
            base.model_copy(update={"hardware": GPU.model_copy(update=change)})
            for change in ({"device": "NVIDIA B300"}, {"capability": "10.3"}, {"count": 4}, {"driver": "590.1"})
        ),
        base.anywhere(),
    ]

    assert len({one.bundle_id for one in [base, *others]}) == len(others) + 1
    assert _plan().bundle_id == base.bundle_id
    assert Fingerprint.model_validate_json(base.model_dump_json()).bundle_id == base.bundle_id


def test_every_difference_is_named() -> None:
    """Each field that is not as it was built appears once, with both values; nested arguments by their path."""
    built = _plan().fingerprint
    here = Fingerprint(
        engine="vllm",
        engine_version=None,
        hardware=Hardware(device="NVIDIA H200", capability="9.0", count=1, driver="590.1"),
        model="c" * 64,
        precision="fp8",
        arguments={"max_seq_len": 8192, "kv_cache_config": {"dtype": "fp8"}, "new": True},
    )
    found = [str(one) for one in differences(built, here)]

    assert found == [
        "engine: built for tensorrt_llm, here vllm",
        "engine_version: built for 1.4.0, here not installed",
        f"model: built for {'a' * 64}, here {'c' * 64}",
        "precision: built for bf16, here fp8",
        "device: built for NVIDIA B200, here NVIDIA H200",
        "capability: built for 10.0, here 9.0",
        "count: built for 2, here 1",
        "driver: built for 580.95.05, here 590.1",
        "arguments.kv_cache_config.dtype: built for auto, here fp8",
        "arguments.max_seq_len: built for 4096, here 8192",
        "arguments.new: built for not set, here True",
    ]
    assert differences(built, built) == ()
    assert differences(built.anywhere(), built) == ()


@pytest.mark.parametrize("engine", ["vllm", "tensorrt_llm"])
def test_free_memory_makes_no_other_bundle(engine: str) -> None:
    """What follows from how much memory happens to be free is frozen, but does not count; lengths do."""
    few = engine_arguments(engine, "bf16", Limits(context_tokens=4096, max_sequences=8, gpu_memory_fraction=0.5))
    much = engine_arguments(engine, "bf16", Limits(context_tokens=4096, max_sequences=8, gpu_memory_fraction=0.9))
    longer = engine_arguments(engine, "bf16", Limits(context_tokens=8192, max_sequences=8, gpu_memory_fraction=0.9))

    assert few != much
    assert lasting(few) == lasting(much)
    assert lasting(longer) != lasting(much)
    assert not any("nowhere" in str(value) for value in much.values())


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [
        ({"engine": "llama_cpp", "precision": "f32", "hardware": CPU}, 3.0, 3.5),
        ({"engine": "llama_cpp", "precision": "bf16", "hardware": CPU}, 1.0, 1.2),
        ({"engine": "llama_cpp", "precision": "q4_k_m", "hardware": CPU}, 1.3, 1.5),
        ({"engine": "llama_cpp", "precision": "q4_k_m", "prebuild_only": True}, 0.3, 0.5),
        ({"precision": "nvfp4"}, 0.3, 0.6),
        ({"precision": "bf16"}, 0.0, 0.0),
    ],
    ids=["f32", "bf16", "q4_k_m", "prebuilt", "nvfp4", "referred"],
)
def test_a_plan_knows_its_room(changes: dict[str, object], least: float, most: float) -> None:
    """Room is asked for the weights that are written, and for those of the gate where they have to be written, too."""
    size = 52_000_000_000
    files = {"model.safetensors": FileRecord(size=size, sha256="0" * 64)}
    checkpoint = CheckpointFacts("gemma", "a" * 64, files, "bf16", PLAIN, has_vision=True)

    room = _plan(checkpoint=checkpoint, **changes).room

    assert least * size <= room <= most * size
