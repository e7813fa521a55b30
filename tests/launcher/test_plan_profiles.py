"""The plan over the full manifest: what is chosen on which machine, and that every reason and remedy holds."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from config.errors import ConfigError
from config.manifest import FileEntry, Manifest, Workspace, load_manifest
from config.settings import EngineSettings, LaunchSettings, ModelSettings, Settings
from config.settings_profile import MemorySettings, ProfileSettings
from config.variants import find_variant
from launcher.errors import LaunchError
from launcher.hardware.system import Gpu, GpuProcess, Problem, System
from launcher.memory import variant_shape
from launcher.model import ModelFiles
from launcher.plan.estimate import imagined_system
from launcher.plan.planner import Plan, Refusal, Rejection, Verdict, plan_profile

GIB = 2**30
MANIFEST = load_manifest()
ALL = frozenset({"llama_cpp", "vllm", "tensorrt_llm"})


def _planned(system: System, settings: Settings | None = None, engines: frozenset[str] = ALL) -> Plan:
    plan = plan_profile(settings or Settings(), system, MANIFEST, engines)
    assert isinstance(plan, Plan), plan
    return plan


def _refused(system: System, settings: Settings, engines: frozenset[str] = ALL) -> Refusal:
    refusal = plan_profile(settings, system, MANIFEST, engines)
    assert isinstance(refusal, Refusal)
    return refusal


def _name(plan: Plan) -> str:
    assert plan.profile is not None
    return plan.profile.name


def _profile(**values: object) -> Settings:
    return Settings(profile=ProfileSettings.model_validate(values))


def _rejection(plan: Plan | Refusal, name: str) -> Rejection:
    return next(one for one in plan.rejected if one.profile.name == name)


def _busy(system: System, free: int, *processes: GpuProcess) -> System:
    """Return the system with so many bytes free on its first GPU."""
    first, *rest = system.gpus
    return replace(system, gpus=(replace(first, memory_free=free, processes=processes), *rest))


@pytest.mark.parametrize(
    ("gpus", "variant", "expected", "context"),
    [
        # The engine follows the architecture, and the smallest native precision wins.
        ("1xB200", "26b-a4b", "tensorrt_llm-26b-a4b-nvfp4-tp1-pp1-latency", 262_144),
        ("1xGB300", "31b", "tensorrt_llm-31b-nvfp4-tp1-pp1-latency", 262_144),
        ("1xH100", "26b-a4b", "vllm-26b-a4b-fp8-tp1-pp1-latency", 262_144),
        ("1xA100", "26b-a4b", "vllm-26b-a4b-bf16-tp1-pp1-latency", 262_144),
        ("1xRTX PRO 6000", "26b-a4b", "vllm-26b-a4b-nvfp4-tp1-pp1-latency", 262_144),
        ("DGX Spark", "31b", "vllm-31b-nvfp4-tp1-pp1-latency", 262_144),
        # GPUs linked by NVLink are taken as long as each has heads of its own.
        ("8xH100", "26b-a4b", "vllm-26b-a4b-fp8-tp2-pp1-latency", 262_144),
        ("8xH100", "31b", "vllm-31b-fp8-tp4-pp1-latency", 262_144),
        # Without a link no more than it takes.
        ("4xL40S", "26b-a4b", "vllm-26b-a4b-fp8-tp1-pp1-latency", 262_144),
        ("2xL40S", "31b", "vllm-31b-fp8-tp2-pp1-latency", 262_144),
        ("4xA10G", "26b-a4b", "vllm-26b-a4b-bf16-tp4-pp1-latency", 262_144),
        # What does not fit in a native precision is emulated, and the context shrinks.
        ("1xA100 40GB", "26b-a4b", "vllm-26b-a4b-fp8-tp1-pp1-latency", 262_144),
        ("1xRTX 4090", "26b-a4b", "vllm-26b-a4b-nvfp4-tp1-pp1-latency", 65_536),
        ("1xL40S", "31b", "vllm-31b-nvfp4-tp1-pp1-latency", 65_536),
        # And where no GPU will do, the processor does.
        ("4xT4", "26b-a4b", "llama_cpp-26b-a4b-q4_k_m-tp1-pp1-latency", 32_768),
        ("1xRTX 4090", "31b", "llama_cpp-31b-q4_k_m-tp1-pp1-latency", 32_768),
        ("", "26b-a4b", "llama_cpp-26b-a4b-q4_k_m-tp1-pp1-latency", 32_768),
    ],
)
def test_choice_follows_the_documented_order(gpus: str, variant: str, expected: str, context: int) -> None:
    """Device, context, precision, engine, objective, number of GPUs: as docs/profiles.md says."""
    plan = _planned(imagined_system(gpus), _profile(variant=variant))

    assert (_name(plan), plan.context_tokens) == (expected, context)
    assert plan.why
    assert plan.core == expected.split("-", maxsplit=1)[0]


def test_smaller_model_is_served_unless_something_else_is_said() -> None:
    """Without a word the 26B is served, and the 31B's profiles say how to get them."""
    plan = _planned(imagined_system("1xH200"))

    assert plan.names == ("google/gemma-4-26b-a4b-it", "google/gemma-4-26B-A4B-it")
    rejected = _rejection(plan, "vllm-31b-fp8-tp1-pp1-latency")
    assert rejected.code == "variant"
    assert rejected.remedy.startswith("set NIM_MODEL_VARIANT=31b, or set NIM_MODEL_PROFILE=vllm-31b-")


@pytest.mark.parametrize(("free_gib", "context"), [(38, 131_072), (34, 131_072), (33, 65_536), (31, 8192)])
def test_busy_gpu_gets_a_shorter_context_and_says_so(free_gib: float, context: int) -> None:
    """What others hold is left alone; the server starts with what remains."""
    system = _busy(imagined_system("1xH100"), int(free_gib * GIB))
    plan = _planned(system, _profile(precision="fp8"))

    assert plan.context_tokens == context
    assert plan.memory.total <= plan.memory_budget <= free_gib * GIB  # type: ignore[operator]
    assert any("GPU 0 is in use" in note for note in plan.notes)
    assert any(f"{context} tokens of context instead of 131072" in note for note in plan.notes) == (context < 131_072)


def test_cuda_graphs_are_given_up_last() -> None:
    """Just before nothing fits, CUDA graphs go, and the plan says what that costs."""
    plan = _planned(_busy(imagined_system("1xH100"), int(30.3 * GIB)), _profile(precision="fp8"))

    assert not plan.cuda_graphs
    assert plan.context_tokens <= 8192
    assert any("without CUDA graphs" in note for note in plan.notes)


def test_strict_fit_refuses_instead_of_shrinking() -> None:
    """NIM_STRICT_FIT=1: the wanted context or nothing, with the figure that would do."""
    system = _busy(imagined_system("1xH100"), 32 * GIB)
    settings = _profile(precision="fp8", strict_fit=True, tags="llm_engine=vllm")

    refusal = _refused(system, settings)

    tokens = int(re.search(r"NIM_MAX_MODEL_LEN=(\d+)", refusal.remedy)[1])  # type: ignore[index]
    assert "NIM_STRICT_FIT=1" in refusal.reason
    assert 32_768 < tokens < 65_536
    shorter = settings.model_copy(update={"model": ModelSettings(max_model_len=tokens)})
    assert _planned(system, shorter).context_tokens == tokens


def test_memory_held_by_others_is_named_with_its_holder() -> None:
    """Who holds the memory is the first thing to know."""
    system = _busy(imagined_system("1xH100"), 5 * GIB, GpuProcess(4711, "python", 70 * GIB))

    plan = _planned(system)

    assert _name(plan).startswith("llama_cpp")
    assert "too little free memory" in plan.why
    rejected = _rejection(plan, "vllm-26b-a4b-fp8-tp1-pp1-latency")
    assert (rejected.verdict, rejected.code) == (Verdict.LOW_MEMORY, "memory")
    assert "free memory of GPU 0" in rejected.remedy
    assert "python (pid 4711)" in rejected.remedy


def test_idle_gpu_is_preferred_to_a_busy_one() -> None:
    """Of two equal GPUs the free one is taken."""
    plan = _planned(_busy(imagined_system("2xL40S"), 20 * GIB))

    assert [gpu.index for gpu in plan.gpus] == [1]


def test_mig_slices_stand_alone() -> None:
    """A slice is a GPU of its own size, and slices do not work together."""
    system = imagined_system("2xH100")
    slices = tuple(
        replace(gpu, mig_profile="3g.40gb", memory_total=40 * GIB, memory_free=39 * GIB, nvlink_peers=frozenset())
        for gpu in system.gpus
    )
    plan = _planned(replace(system, gpus=slices))

    assert _name(plan) == "vllm-26b-a4b-fp8-tp1-pp1-latency"
    rejected = _rejection(plan, "vllm-26b-a4b-bf16-tp2-pp1-latency")
    assert (rejected.code, rejected.verdict) == ("mig", Verdict.INCOMPATIBLE)
    assert "MIG slices cannot work together" in rejected.reason


def test_gpus_of_different_kinds_are_not_mixed() -> None:
    """An engine takes GPUs of one kind; what is there is said in the reason."""
    plan = _planned(imagined_system("1xH100,2xL40S"), _profile(variant="31b", tags="precision=bf16,tp=2"))

    assert [gpu.name for gpu in plan.gpus] == ["NVIDIA L40S", "NVIDIA L40S"]
    rejected = _rejection(plan, "vllm-31b-bf16-tp4-pp1-latency")
    assert rejected.reason == (
        "it needs 4 usable GPUs of one kind, and there are 1 x NVIDIA H100 80GB HBM3 and 2 x NVIDIA L40S"
    )
    assert '`gemma4-nim estimate --gpu "4xNVIDIA H100 80GB HBM3"`' in rejected.remedy


def test_missing_nvlink_is_noted() -> None:
    """GPUs that exchange over PCIe do so with every token."""
    plan = _planned(imagined_system("4xA10G"))

    assert any("GPUs 0, 1, 2, 3 are not linked by NVLink" in note for note in plan.notes)


def test_gpu_with_a_problem_is_left_out_and_named() -> None:
    """A GPU that cannot be used leads to its own remedy."""
    system = imagined_system("1xH100")
    broken = replace(system.gpus[0], problem=Problem("gpu-lost", "GPU 0 no longer answers", "restart the machine"))
    plan = _planned(replace(system, gpus=(broken,)))

    assert plan.why.startswith("no GPU can be used")
    assert "GPU 0 no longer answers: restart the machine" in plan.notes
    rejected = _rejection(plan, "vllm-26b-a4b-fp8-tp1-pp1-latency")
    assert "GPU 0 no longer answers" in rejected.reason
    assert rejected.remedy.startswith("restart the machine; see `gemma4-nim estimate")


def test_system_without_driver_leads_to_the_drivers_remedy() -> None:
    """What detection found out is what the plan passes on."""
    problem = Problem("driver-missing", "there is an NVIDIA GPU, but no driver", "install the driver")
    plan = _planned(replace(imagined_system(""), problems=(problem,)))

    assert "no GPU can be seen" in plan.why
    assert _rejection(plan, "vllm-26b-a4b-fp8-tp1-pp1-latency").remedy.startswith("install the driver; ")


def test_engine_that_is_not_in_the_image_is_named() -> None:
    """With llama.cpp only, a GPU machine serves from its processor and says which image would do better."""
    plan = _planned(imagined_system("8xH100"), engines=frozenset({"llama_cpp"}))

    assert _name(plan) == "llama_cpp-26b-a4b-q4_k_m-tp1-pp1-latency"
    assert plan.why.startswith("there is no engine for GPUs in this image")
    rejected = _rejection(plan, "vllm-26b-a4b-fp8-tp2-pp1-latency")
    assert rejected.reason == "the engine vllm is not in this image"
    assert rejected.remedy.startswith("start the image that is made for vLLM; here, set NIM_MODEL_PROFILE=llama_cpp-")


def test_unproven_profile_runs_when_it_is_named() -> None:
    """TensorRT-LLM on Hopper is not chosen, but whoever names it gets it, with a word of warning."""
    name = "tensorrt_llm-26b-a4b-bf16-tp1-pp1-latency"
    system = imagined_system("1xH100")
    rejected = _rejection(_planned(system), name)
    assert (rejected.code, rejected.verdict) == ("unproven", Verdict.RUNNABLE)

    plan = _planned(system, _profile(name=name))

    assert _name(plan) == name
    assert plan.why == "NIM_MODEL_PROFILE asks for it"
    assert any(note.startswith("unproven: TensorRT-LLM was not shown to run Gemma 4") for note in plan.notes)


def test_named_profile_that_cannot_run_says_why_itself() -> None:
    """Who pins a profile hears about that profile, not about others."""
    refusal = _refused(imagined_system("1xL4"), _profile(name="vllm-31b-bf16-tp1-pp1-latency"))

    assert refusal.reason.startswith("vllm-31b-bf16-tp1-pp1-latency cannot run here: the 31b in bf16 needs ")
    assert refusal.remedy
    assert len(refusal.rejected) == len(MANIFEST.profiles)


def test_nothing_fits_names_what_came_closest_and_the_demo() -> None:
    """A machine that is too small is told how much is missing, and what runs anywhere."""
    refusal = _refused(imagined_system("", memory_bytes=8 * GIB), Settings())

    assert "llama_cpp-26b-a4b-q4_k_m" in refusal.reason
    assert "8.0 GiB are available" in refusal.reason
    assert "NIM_MODEL_PROFILE=demo-moe" in refusal.remedy


def test_adapters_and_draft_models_come_when_asked_for() -> None:
    """Neither is chosen by itself; a tag or a name brings it."""
    system = imagined_system("1xH200")

    assert _name(_planned(system, _profile(tags="feat_lora=true"))) == "vllm-26b-a4b-bf16-tp1-pp1-latency-lora"
    assert _name(_planned(system, _profile(tags="feat_mtp=true"))) == "vllm-26b-a4b-fp8-tp1-pp1-latency-mtp"
    assert _name(_planned(system, _profile(name="vllm-bf16-tp1-pp1-lora"))).endswith("bf16-tp1-pp1-latency-lora")
    assert _rejection(_planned(system), "vllm-26b-a4b-bf16-tp1-pp1-latency-lora").code == "lora"


def test_objective_decides_between_link_and_frugality() -> None:
    """For throughput one GPU is enough where it suffices, and more requests are served at once."""
    latency = _planned(imagined_system("8xH100"))
    throughput = _planned(imagined_system("8xH100"), _profile(objective="throughput"))

    assert (latency.tensor_parallel, throughput.tensor_parallel) == (2, 1)
    assert throughput.max_sequences > latency.max_sequences


def test_settings_bound_the_memory() -> None:
    """A share of the memory and a headroom that were set are kept; the fraction for the engine follows."""
    half = Settings(memory=MemorySettings(gpu_utilization=0.5))
    roomy = Settings(memory=MemorySettings(gpu_headroom_gib=30))
    system = imagined_system("1xH200")
    total = system.gpus[0].memory_total

    assert _planned(system, half).memory_budget == int(total * 0.5)
    assert _planned(system, half).gpu_memory_fraction == pytest.approx(0.5, abs=0.001)
    assert _planned(system, roomy).memory_budget == system.gpus[0].memory_free - 30 * GIB
    assert _planned(system).memory_budget == system.gpus[0].memory_free - 2 * GIB
    assert _planned(imagined_system("")).gpu_memory_fraction is None


def test_unified_memory_keeps_a_reserve_for_the_system() -> None:
    """Where GPU and processor share memory, 16 GiB stay for the system unless something else is said."""
    system = imagined_system("DGX Spark")
    free = system.gpus[0].memory_free

    assert _planned(system).memory_budget == free - 16 * GIB
    little = Settings(memory=MemorySettings(host_reserve_gib=8))
    assert _planned(system, little).memory_budget == free - 8 * GIB
    assert any("16.0 GiB stay for the system" in note for note in _planned(system).notes)


def test_wishes_for_context_and_requests_are_kept() -> None:
    """What was asked for is what runs, where it fits."""
    settings = Settings(
        model=ModelSettings(max_model_len=50_000, served_names=("mine",)), engine=EngineSettings(max_num_seqs=3)
    )
    plan = _planned(imagined_system("1xH100"), settings)

    assert (plan.context_tokens, plan.max_sequences, plan.full_sequences) == (50_000, 3, 3)
    assert plan.names == ("mine",)
    assert plan.cache_tokens == 150_000


def test_context_beyond_the_model_is_refused() -> None:
    """A model cannot be stretched beyond what it was made for."""
    refusal = _refused(imagined_system("8xB200"), Settings(model=ModelSettings(max_model_len=300_000)))

    assert "more than the 262144 tokens" in refusal.reason


def test_relaxed_memory_starts_all_the_same() -> None:
    """NIM_RELAX_MEM_CONSTRAINTS=1 takes the smallest plan, and says that the estimate is against it."""
    settings = Settings(
        profile=ProfileSettings(name="vllm-26b-a4b-nvfp4-tp1-pp1-latency"), launch=LaunchSettings(relax_memory=True)
    )
    plan = _planned(_busy(imagined_system("1xRTX 4090"), 10 * GIB), settings)

    assert plan.context_tokens == 2048
    assert any("memory does not suffice" in note for note in plan.notes)


def test_relaxed_memory_prefers_what_fits() -> None:
    """What does not fit is only tried when nothing fits, or when it is named."""
    relaxed = Settings(launch=LaunchSettings(relax_memory=True))
    full = _busy(imagined_system("1xRTX 4090"), GIB)

    plan = _planned(full, relaxed)
    assert _name(plan) == "llama_cpp-26b-a4b-q4_k_m-tp1-pp1-latency"
    rejected = _rejection(plan, "vllm-26b-a4b-nvfp4-tp1-pp1-latency")
    assert (rejected.code, rejected.reason) == ("ranked-lower", "the estimate says that it does not fit")

    tried = _planned(replace(full, memory_available=GIB), relaxed)
    assert (tried.core, tried.context_tokens, tried.full_sequences) == ("vllm", 2048, 0)


def test_files_are_there_only_after_the_download() -> None:
    """The plan of a profile has no files; asking for them too early is an error with a remedy."""
    plan = _planned(imagined_system("1xH100"))

    assert plan.files is None
    with pytest.raises(LaunchError, match="are not there yet") as caught:
        _ = plan.model
    assert "download-to-cache" in caught.value.remedy


@pytest.mark.parametrize("gpus", ["8xH100", "1xRTX 4090", "2xA100 40GB", "1xB200", "4xT4"])
def test_every_remedy_that_names_a_profile_works(gpus: str) -> None:
    """Who follows a remedy gets what it promises: the profile itself, or the one that it names instead."""
    system = imagined_system(gpus)
    plan = _planned(system)

    assert len(plan.rejected) == len(MANIFEST.profiles) - 1
    names = {
        name
        for one in plan.rejected
        for name in re.findall(r"NIM_MODEL_PROFILE=([\w.-]+)", one.remedy)
    }  # fmt: skip
    assert names
    for one in plan.rejected:
        if one.verdict is Verdict.RUNNABLE:
            assert f"NIM_MODEL_PROFILE={one.profile.name}" in one.remedy
    # Each of them takes a plan of its own, so a tenth is tried, always the same ones.
    for name in sorted(names)[::10]:
        assert _name(_planned(system, _profile(name=name))) == name


@pytest.mark.parametrize("gpus", ["", "1xL4", "4xT4", "1xH100"])
def test_every_remedy_that_names_hardware_works(gpus: str) -> None:
    """The machine of a suggested estimate runs the profile for which it was suggested."""
    plan = _planned(imagined_system(gpus))
    suggestions = {
        (one.profile.name, match[1])
        for one in plan.rejected
        if (match := re.search(r'estimate --gpu "([^"]+)"', one.remedy))
    }

    assert suggestions
    for name, machine in sorted(suggestions)[::6]:
        assert _name(_planned(imagined_system(machine), _profile(name=name))) == name


def test_remedy_of_a_tag_names_the_variable_to_unset() -> None:
    """A profile that only a tag keeps out says which variable."""
    plan = _planned(imagined_system("1xH100"), _profile(tags="precision=bf16", objective="throughput"))
    rejected = _rejection(plan, "vllm-26b-a4b-fp8-tp1-pp1-latency")

    assert rejected.code == "tags"
    assert rejected.remedy == (
        "unset NIM_TAGS_SELECTOR and NIM_PERF_PROFILE and set NIM_MODEL_PROFILE=vllm-26b-a4b-fp8-tp1-pp1-latency"
    )


def test_plan_over_all_profiles_is_quick() -> None:
    """Eight GPUs and the whole manifest take well under 0.3 s, so that listing profiles feels immediate."""
    system = imagined_system("8xH100")
    taken = []
    for _ in range(5):
        start = time.process_time()
        _planned(system)
        taken.append(time.process_time() - start)

    assert min(taken) < 0.3


def test_unknown_gpu_lists_near_names() -> None:
    """A slip of the pen in an estimate costs one look at the message."""
    with pytest.raises(ConfigError, match=r"no GPU is known as 'L40X'.*NVIDIA L40S"):
        imagined_system("2xL40X")
    with pytest.raises(ConfigError, match="must be from 1 to 64"):
        imagined_system("0xL4")


def test_imagined_machine_is_as_large_as_it_was_described() -> None:
    """Counts, links and shared memory follow the words."""
    system = imagined_system("2xH100, 1xDGX Spark", memory_bytes=100 * GIB, cores=4)

    assert [gpu.name for gpu in system.gpus] == ["NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", "NVIDIA GB10"]
    assert [sorted(gpu.nvlink_peers) for gpu in system.gpus] == [[1], [0], []]
    assert [gpu.unified_memory for gpu in system.gpus] == [False, False, True]
    assert (system.memory_available, system.cores) == (100 * GIB, 4)
    assert isinstance(system.gpus[0], Gpu)


def _of_another_publisher(**tags: str) -> Manifest:
    """Return a manifest with one profile that has these tags, and one of this project's."""
    known = MANIFEST.profiles[0]
    foreign = known.model_copy(update={"id": "f" * 64, "tags": known.tags | tags})
    cpu = next(profile for profile in MANIFEST.profiles if profile.engine == "llama_cpp")
    return MANIFEST.model_copy(update={"profiles": (foreign, cpu)})


@pytest.mark.parametrize(
    ("tags", "engines", "reason"),
    [
        ({"pp": "2"}, ALL, "Gemma 4 is not split into pipelines: pp must be 1"),
        ({"llm_engine": "sglang"}, ALL, "the engine sglang is not in this image"),
        ({"llm_engine": "sglang"}, ALL | {"sglang"}, "sglang does not run on NVIDIA GPUs here"),
        ({"llm_engine": "vllm", "precision": "mxfp4"}, ALL, "vllm does not read mxfp4"),
    ],
)
def test_what_other_manifests_may_hold_is_refused_with_its_reason(
    tags: dict[str, str], engines: frozenset[str], reason: str
) -> None:
    """Engines, precisions and pipelines that do not exist here are named, and the rest of the manifest is served."""
    plan = plan_profile(Settings(), imagined_system("8xH100"), _of_another_publisher(**tags), engines)

    assert isinstance(plan, Plan)
    (rejected,) = plan.rejected
    assert rejected.reason == reason
    assert rejected.verdict is Verdict.INCOMPATIBLE
    assert "NIM_MODEL_PROFILE=llama_cpp-26b-a4b-q8_0-tp1-pp1-latency" in rejected.remedy


def test_manifest_of_the_dense_model_alone_serves_it() -> None:
    """Which model is served by itself is a question only where there are both."""
    only = MANIFEST.model_copy(update={"profiles": tuple(one for one in MANIFEST.profiles if one.variant == "31b")})

    plan = plan_profile(Settings(), imagined_system("1xH200"), only, ALL)

    assert isinstance(plan, Plan)
    assert plan.names[0] == "google/gemma-4-31b-it"


def test_more_gpus_than_any_known_one_holds_is_said() -> None:
    """A profile that no single GPU of the catalogue can hold says so instead of suggesting one."""
    known = MANIFEST.profiles[0]
    huge = FileEntry(uri="hf://a/b:main", approximate_size=2000 * 10**9, resolve="at download")
    profile = known.model_copy(update={"id": "e" * 64, "workspace": Workspace(files={"*": huge})})

    refusal = plan_profile(
        Settings(), imagined_system("8xB200"), MANIFEST.model_copy(update={"profiles": (profile,)}), ALL
    )

    assert isinstance(refusal, Refusal)
    assert refusal.code == "memory"
    assert "no GPU that is known holds it" in refusal.remedy


def test_refusals_carry_a_code() -> None:
    """Programs tell settings that cannot be meant from machines that are too small."""
    assert _refused(imagined_system(""), _profile(name="nothing")).code == "settings"
    assert _refused(imagined_system("", memory_bytes=GIB), Settings()).code == "memory"
    assert _refused(imagined_system(""), _profile(tags="llm_engine=vllm")).code == "no-gpu"
    assert _refused(imagined_system(""), Settings(), frozenset({"vllm"})).code == "no-gpu"


def test_processor_without_avx2_needs_a_gpu() -> None:
    """llama.cpp is out of the question there, with the processor's name."""
    system = replace(imagined_system(""), cpu_features=frozenset({"sse2"}), cpu_model="Old Xeon")
    refusal = _refused(system, _profile(tags="llm_engine=llama_cpp"))

    assert refusal.code == "cpu"
    assert "llama.cpp's library needs AVX2, which Old Xeon lacks" in refusal.reason
    assert "AVX2" in refusal.remedy


def test_downloaded_files_complete_the_plan() -> None:
    """After the download the same plan has its files."""
    plan = _planned(imagined_system(""))
    shape = variant_shape(find_variant("26b-a4b"))
    files = ModelFiles(Path("/m.gguf"), 17 * GIB, None, None, shape, plan.names, "downloaded")

    complete = plan.with_files(files)

    assert complete.model is files
    assert replace(complete, files=None) == plan
