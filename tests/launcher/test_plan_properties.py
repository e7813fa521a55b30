"""What must hold for every plan, whatever the machine and the settings."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from config.gpus import GpuModel, all_gpus
from config.manifest import load_manifest
from config.settings import EngineSettings, ModelSettings, Settings
from config.settings_profile import MemorySettings, ProfileSettings
from config.variants import TRAINED_CONTEXT, find_variant
from launcher.hardware.system import Gpu, Problem, System
from launcher.memory import estimate_memory, variant_shape
from launcher.memory_gpu import estimate_gpu
from launcher.plan.assess import Scene
from launcher.plan.choose import Choice, choose
from launcher.plan.fit import SMALLEST_CONTEXT, frugal_loads
from launcher.plan.planner import MEMORY_SHARE, Plan, Refusal, Verdict, plan_profile
from launcher.plan.ranking import COMFORTABLE_CONTEXT
from launcher.plan.selection import Selection, select
from launcher.plan.wishes import read_wishes

GIB = 2**30
MANIFEST = load_manifest()
PROFILES = frozenset(profile.id for profile in MANIFEST.profiles)
ENGINES = ("llama_cpp", "vllm", "tensorrt_llm")
NAMED = re.compile(r"(?:unset (?P<unset>[A-Z_]+(?: and [A-Z_]+)*) and )?set NIM_MODEL_PROFILE=(?P<name>[\w.-]+)")
OPEN = {"NIM_TAGS_SELECTOR": "tags", "NIM_MODEL_VARIANT": "variant"}
TAGS = ((), (), (("precision", "fp8"),), (("tp", "2"),), (("profile", "throughput"),), (("feat_lora", "true"),))


def _gpu(model: GpuModel, free_share: float, state: str, linked: int) -> Gpu:
    """Return a GPU; ``linked`` is the number of GPUs that the machine's switch connects."""
    problem = Problem("gpu-lost", "it no longer answers", "restart the machine") if state == "lost" else None
    mig = state == "mig" and not model.unified
    total = model.memory_bytes // 2 if mig else model.memory_bytes
    return Gpu(
        index=0,
        uuid="",
        name=model.name,
        pci_device_id="",
        compute_capability=model.compute_capability,
        memory_total=total,
        memory_free=int(total * free_share),
        mig_profile="half" if mig else None,
        unified_memory=model.unified,
        nvlink_peers=frozenset(range(linked)) if model.nvlink and not mig else frozenset(),
        problem=problem,
    )


def _numbered(gpus: list[Gpu]) -> tuple[Gpu, ...]:
    return tuple(
        replace(gpu, index=index, uuid=f"GPU-{index}", nvlink_peers=gpu.nvlink_peers - {index})
        for index, gpu in enumerate(gpus)
    )


def _memory(utilization: float | None, headroom: float | None) -> MemorySettings:
    given_headroom = {} if headroom is None else {"gpu_headroom_gib": headroom}
    return MemorySettings(gpu_utilization=utilization, **given_headroom)


states = st.sampled_from(["whole", "whole", "whole", "mig", "lost"])
models = st.sampled_from(all_gpus())
same_gpus = st.tuples(models, st.integers(1, 8), st.integers(0, 8), states).flatmap(
    lambda kind: st.lists(
        st.builds(_gpu, st.just(kind[0]), st.floats(0, 1), st.just(kind[3]), st.just(kind[2])),
        min_size=kind[1],
        max_size=kind[1],
    )
)
mixed_gpus = st.lists(st.builds(_gpu, models, st.floats(0, 1), states, st.integers(0, 4)), max_size=4)
systems = st.builds(
    lambda gpus, memory, cores, features: System(
        gpus=_numbered(gpus),
        driver=None,
        cpu_model="a processor",
        cores=cores,
        cpu_features=features,
        memory_total=memory,
        memory_available=memory,
    ),
    same_gpus | mixed_gpus,
    st.integers(0, 600 * GIB),
    st.integers(1, 64),
    st.sampled_from([frozenset(), frozenset({"sse2"}), frozenset({"sse2", "avx2"}), frozenset({"neon"})]),
)
wishes = st.builds(
    lambda context, sequences, strict, utilization, headroom, tags, variant: Settings(
        model=ModelSettings(max_model_len=context),
        engine=EngineSettings(max_num_seqs=sequences),
        memory=_memory(utilization, headroom),
        profile=ProfileSettings(strict_fit=strict, tags=tags, variant=variant),
    ),
    st.none() | st.integers(64, TRAINED_CONTEXT),
    st.none() | st.integers(1, 256),
    st.booleans(),
    st.none() | st.floats(0.1, 1),
    st.none() | st.floats(0, 20),
    st.sampled_from(TAGS),
    st.none() | st.sampled_from(["26b-a4b", "31b"]),
)
images = st.frozensets(st.sampled_from(ENGINES), min_size=1)


@settings(max_examples=60, deadline=None)
@given(systems, wishes, images)
def test_plan_fits_and_every_other_profile_has_a_reason(
    system: System, asked: Settings, engines: frozenset[str]
) -> None:
    """No plan takes more memory than there is; each profile is chosen, or has a reason and a remedy."""
    plan = plan_profile(asked, system, MANIFEST, engines)

    for one in plan.rejected:
        assert one.reason.strip()
        assert one.remedy.strip()
        assert one.code
        assert 0 < one.smallest_bytes <= one.required_bytes or asked.model.max_model_len is not None
    rejected = {one.profile.id for one in plan.rejected}
    assert len(rejected) == len(plan.rejected)
    if isinstance(plan, Refusal):
        assert plan.reason
        assert plan.remedy
        assert rejected in (PROFILES, frozenset())
        return
    assert plan.profile is not None
    assert rejected == PROFILES - {plan.profile.id}
    _check_figures(plan, system, asked)
    assert plan.profile.engine in engines


def _check_figures(plan: Plan, system: System, asked: Settings) -> None:
    assert plan.profile is not None
    assert 0 < plan.context_tokens <= plan.wanted_context <= TRAINED_CONTEXT
    assert plan.context_tokens >= min(SMALLEST_CONTEXT, plan.wanted_context)
    assert plan.context_tokens == plan.wanted_context or not asked.profile.strict_fit
    assert plan.max_sequences == (asked.engine.max_num_seqs or plan.max_sequences)
    if plan.core == "llama_cpp":
        assert system.memory_available is not None
        estimate = estimate_memory(
            variant_shape(find_variant(plan.profile.variant)), plan.profile.download_size,
            plan.context_tokens, plan.max_sequences,
        )  # fmt: skip
        assert plan.memory == estimate
        assert estimate.total <= system.memory_available * MEMORY_SHARE
        return
    assert plan.memory_budget is not None
    assert len(plan.gpus) == plan.profile.tensor_parallel
    assert len({gpu.name for gpu in plan.gpus}) == 1
    assert all(gpu in system.gpus and gpu.problem is None for gpu in plan.gpus)
    # Reckoned anew from the profile, not from what the plan says of itself.
    load = replace(
        frugal_loads(plan.profile, read_wishes(asked))[0],
        batch_tokens=plan.batch_tokens, sequences=plan.max_sequences, graphs=plan.cuda_graphs,
    )  # fmt: skip
    assert plan.full_sequences >= 1
    assert estimate_gpu(load, plan.context_tokens, plan.full_sequences).total == plan.memory.total
    for gpu in plan.gpus:
        assert plan.memory.total <= plan.memory_budget <= gpu.memory_free
        assert plan.memory_budget <= gpu.memory_total * (asked.memory.gpu_utilization or 1)


def _choice(system: System, asked: Settings, engines: frozenset[str]) -> Choice | Refusal:
    found = read_wishes(asked)
    selection = select(MANIFEST, found)
    assert isinstance(selection, Selection)
    return choose(MANIFEST, Scene(system, engines, found), selection)


@settings(max_examples=40, deadline=None)
@given(systems, wishes, images, st.lists(st.floats(0, 1), min_size=9, max_size=9))
def test_more_memory_never_gives_a_worse_plan(
    system: System, asked: Settings, engines: frozenset[str], shares: list[float]
) -> None:
    """With more free memory anywhere the choice ranks at least as high; the profile keeps the context that counts."""
    available = system.memory_available or 0
    roomier = replace(
        system,
        gpus=tuple(
            replace(gpu, memory_free=gpu.memory_free + int((gpu.memory_total - gpu.memory_free) * share))
            for gpu, share in zip(system.gpus, shares, strict=False)
        ),
        memory_available=available + int(100 * GIB * shares[8]),
    )
    before, after = _choice(system, asked, engines), _choice(roomier, asked, engines)

    if isinstance(before, Choice):
        assert isinstance(after, Choice)
        assert after.chosen.rank >= before.chosen.rank
        same = [one for one in after.runnable if one.profile.id == before.chosen.profile.id]
        assert len(same) == 1
        assert same[0].context >= min(before.chosen.context, COMFORTABLE_CONTEXT)


@settings(max_examples=15, deadline=None)
@given(systems, wishes, images)
def test_planning_is_a_function_of_what_it_is_given(system: System, asked: Settings, engines: frozenset[str]) -> None:
    """The same machine and settings always give the same plan."""
    assert plan_profile(asked, system, MANIFEST, engines) == plan_profile(asked, system, MANIFEST, engines)


@settings(max_examples=40, deadline=None)
@given(systems, images)
def test_verdicts_agree_with_the_memory_model(system: System, engines: frozenset[str]) -> None:
    """A profile that is said to lack memory needs more than any set of its GPUs has; NIM's groups rest on this."""
    plan = plan_profile(Settings(), system, MANIFEST, engines)

    for one in plan.rejected:
        if one.verdict is Verdict.LOW_MEMORY and one.profile.engine != "llama_cpp":
            gpus = [gpu for gpu in system.gpus if gpu.problem is None]
            assert len(gpus) >= one.profile.tensor_parallel
            roomy = sorted((gpu.memory_free for gpu in gpus), reverse=True)
            assert one.smallest_bytes > 0
            if len({(gpu.name, gpu.mig_profile) for gpu in gpus}) == 1 and not gpus[0].unified_memory:
                headroom = min(2 * GIB, gpus[0].memory_total // 24)
                assert one.smallest_bytes > roomy[one.profile.tensor_parallel - 1] - headroom


@settings(max_examples=40, deadline=None)
@given(systems, wishes, images, st.integers(0, 1000))
def test_following_a_remedy_gives_what_it_promises(
    system: System, asked: Settings, engines: frozenset[str], which: int
) -> None:
    """Whoever unsets what a remedy says and names the profile gets that profile."""
    plan = plan_profile(asked, system, MANIFEST, engines)
    remedies = [match for one in plan.rejected if (match := NAMED.search(one.remedy))]
    if not remedies:
        return
    match = remedies[which % len(remedies)]
    unset = {OPEN[name] for name in (match["unset"] or "").split(" and ") if name}
    kept = asked.profile.model_copy(update={field: ProfileSettings.model_fields[field].default for field in unset})
    named = asked.model_copy(update={"profile": kept.model_copy(update={"name": match["name"]})})

    followed = plan_profile(named, system, MANIFEST, engines)

    assert isinstance(followed, Plan), followed.reason
    assert followed.profile is not None
    assert followed.profile.name == match["name"]
