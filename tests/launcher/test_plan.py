"""The plan: pure decisions from settings, machine and model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import EngineSettings, LaunchSettings, ModelSettings, Settings
from config.settings_profile import ProfileSettings
from launcher.hardware.system import System
from launcher.memory import ModelShape, estimate_memory
from launcher.model import ModelFiles
from launcher.plan.planner import MEMORY_SHARE, SMALLEST_CONTEXT, Plan, Refusal, make_plan

GIB = 2**30
PATTERN = tuple(index % 6 != 5 for index in range(30))
MOE = ModelFiles(
    weights=Path("/models/moe.gguf"),
    weight_bytes=17 * GIB,
    projector=Path("/models/mmproj.gguf"),
    tokenizer=Path("/models/tokenizer.json"),
    shape=ModelShape(
        layers=30,
        trained_context=262_144,
        embedding=2816,
        feed_forward=7744,
        experts=128,
        vocab=262_144,
        window=1024,
        cache_bytes_per_token=tuple(8192 if sliding else 4096 for sliding in PATTERN),
        sliding=PATTERN,
    ),
    names=("google/gemma-4-26b-a4b-it",),
    why="test",
)


def _machine(cores: int, memory_bytes: int | None, features: frozenset[str] = frozenset()) -> System:
    return System((), None, "a processor", cores, features, memory_bytes, memory_bytes)


def _planned(settings: Settings, machine: System, model: ModelFiles = MOE) -> Plan:
    plan = make_plan(settings, machine, model)
    assert isinstance(plan, Plan)
    return plan


def test_roomy_machine_gets_the_usual_figures() -> None:
    """With memory to spare the defaults hold, and there is nothing to remark."""
    plan = _planned(Settings(), _machine(cores=8, memory_bytes=64 * GIB))

    assert (plan.context_tokens, plan.max_sequences, plan.threads) == (32_768, 8, 7)
    assert plan.notes == ()


def test_short_memory_shrinks_sequences_before_context() -> None:
    """One long conversation is worth more than many short ones, and the note says what changed."""
    plan = _planned(Settings(), _machine(cores=4, memory_bytes=24 * GIB))

    assert plan.context_tokens == 32_768
    assert 2 <= plan.max_sequences < 8
    assert any("memory is short" in note for note in plan.notes)


def test_too_little_memory_is_refused_with_figures_and_remedy() -> None:
    """A model that does not fit at all is refused, with what it needs and what there is."""
    refusal = make_plan(Settings(), _machine(cores=2, memory_bytes=8 * GIB), MOE)

    assert isinstance(refusal, Refusal)
    assert "8.0 GiB are available" in refusal.reason
    assert "NIM_RELAX_MEM_CONSTRAINTS" in refusal.remedy


def test_relaxed_memory_starts_all_the_same() -> None:
    """NIM_RELAX_MEM_CONSTRAINTS=1 takes the smallest plan instead of refusing."""
    settings = Settings(launch=LaunchSettings(relax_memory=True))

    plan = _planned(settings, _machine(cores=2, memory_bytes=8 * GIB))

    assert (plan.context_tokens, plan.max_sequences) == (SMALLEST_CONTEXT, 1)


def test_context_that_does_not_fit_is_shortened_and_said() -> None:
    """A server with less context is worth more than none; how many requests it serves is kept as it was asked."""
    settings = Settings(model=ModelSettings(max_model_len=200_000), engine=EngineSettings(max_num_seqs=1))

    plan = _planned(settings, _machine(cores=2, memory_bytes=24 * GIB))

    assert (plan.context_tokens, plan.max_sequences, plan.wanted_context) == (131_072, 1, 200_000)
    assert any("1 x 131072 tokens instead of 1 x 200000" in note for note in plan.notes)


def test_strict_fit_never_shortens() -> None:
    """With NIM_STRICT_FIT=1 a context that was asked for is granted or refused."""
    settings = Settings(
        model=ModelSettings(max_model_len=200_000),
        engine=EngineSettings(max_num_seqs=8),
        profile=ProfileSettings(strict_fit=True),
    )

    refusal = make_plan(settings, _machine(cores=2, memory_bytes=24 * GIB), MOE)

    assert isinstance(refusal, Refusal)
    assert "8 x 200000 tokens" in refusal.reason
    assert "lower NIM_MAX_MODEL_LEN or NIM_MAX_NUM_SEQS" in refusal.remedy
    assert "NIM_STRICT_FIT=0" in refusal.remedy


def test_processor_without_avx2_is_refused_by_name() -> None:
    """The library would die of an illegal instruction; it is said before, with the processor's name."""
    refusal = make_plan(Settings(), _machine(2, 64 * GIB, frozenset({"sse2", "avx"})), MOE)

    assert isinstance(refusal, Refusal)
    assert refusal.reason == "llama.cpp's library needs AVX2, which a processor lacks"
    assert isinstance(make_plan(Settings(), _machine(2, 64 * GIB, frozenset({"neon"})), MOE), Plan)


def test_context_beyond_the_model_is_refused() -> None:
    """A model cannot be stretched beyond what it was made for."""
    refusal = make_plan(Settings(model=ModelSettings(max_model_len=300_000)), _machine(2, 999 * GIB), MOE)

    assert isinstance(refusal, Refusal)
    assert refusal.reason == "NIM_MAX_MODEL_LEN=300000 is more than the 262144 tokens that the model was made for"


def test_one_core_still_computes() -> None:
    """The engine gets all cores but one, and never none."""
    assert _planned(Settings(), _machine(cores=1, memory_bytes=64 * GIB)).threads == 1


def test_more_threads_than_cores_are_granted_with_a_note() -> None:
    """The user's figure counts, but the cost is told."""
    plan = _planned(Settings(engine=EngineSettings(threads=9)), _machine(cores=2, memory_bytes=64 * GIB))

    assert plan.threads == 9
    assert any("NIM_ENGINE_THREADS=9" in note for note in plan.notes)


def test_model_without_tower_says_that_pictures_are_refused() -> None:
    """Nobody should find out only from a request."""
    plan = _planned(Settings(), _machine(cores=2, memory_bytes=64 * GIB), replace(MOE, projector=None))

    assert any("pictures are refused" in note for note in plan.notes)


def test_unknown_memory_is_planned_and_noted() -> None:
    """Where memory cannot be told the defaults are taken, and the note says that nothing was checked."""
    plan = _planned(Settings(), _machine(cores=2, memory_bytes=None))

    assert plan.context_tokens == 32_768
    assert any("was not checked" in note for note in plan.notes)


@pytest.mark.parametrize("context", [100, 2048, 8192, 131_072])
def test_short_models_keep_their_own_context(context: int) -> None:
    """The context is never longer than what the model was made for."""
    model = replace(MOE, shape=replace(MOE.shape, trained_context=context))

    assert _planned(Settings(), _machine(2, 999 * GIB), model).context_tokens == min(context, 32_768)


settings_strategy = st.builds(
    lambda context, sequences, threads: Settings(
        model=ModelSettings(max_model_len=context), engine=EngineSettings(max_num_seqs=sequences, threads=threads)
    ),
    st.none() | st.integers(64, 262_144),
    st.none() | st.integers(1, 256),
    st.none() | st.integers(1, 64),
)
machine_strategy = st.builds(_machine, st.integers(1, 128), st.integers(0, 512 * GIB))


@given(settings_strategy, machine_strategy)
def test_every_plan_fits_the_machine_and_the_wishes(settings: Settings, machine: System) -> None:
    """A plan never exceeds memory or the model and keeps what the user fixed; a refusal says why and what helps."""
    plan = make_plan(settings, machine, MOE)

    if isinstance(plan, Refusal):
        assert plan.reason
        assert plan.remedy
        return
    assert machine.memory_available is not None
    assert plan.memory == estimate_memory(MOE.shape, MOE.weight_bytes, plan.context_tokens, plan.max_sequences)
    assert plan.memory.total <= machine.memory_available * MEMORY_SHARE
    assert plan.context_tokens <= MOE.shape.trained_context
    assert plan.context_tokens <= (settings.model.max_model_len or plan.context_tokens)
    assert plan.max_sequences == (settings.engine.max_num_seqs or plan.max_sequences)
    assert plan.threads == (settings.engine.threads or max(machine.cores - 1, 1))


@given(settings_strategy, machine_strategy, st.integers(0, 64 * GIB))
def test_more_memory_never_gives_less(settings: Settings, machine: System, more: int) -> None:
    """Whatever is planned on a machine is planned at least as well on one with more memory."""
    assert machine.memory_available is not None
    small = make_plan(settings, machine, MOE)
    large = make_plan(settings, replace(machine, memory_available=machine.memory_available + more), MOE)

    if isinstance(small, Plan):
        assert isinstance(large, Plan)
        assert (large.context_tokens, large.max_sequences) >= (small.context_tokens, small.max_sequences)
