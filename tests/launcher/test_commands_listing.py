"""``list-model-profiles``: NIM's headings and lines, a reason for every profile, the same as JSON, and its speed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from config.environment import load_settings
from config.manifest import load_manifest
from launcher.commands.profile_listing import Listing, lines
from launcher.errors import ExitCode
from launcher.plan.planner import Plan, plan_profile
from tests.fakes import console
from tests.fakes.measuring import best
from tests.launcher import systems
from tests.launcher.fake_nvml import library

ALL_ENGINES = frozenset({"llama_cpp", "vllm", "tensorrt_llm"})
PROFILE = re.compile(r" {2,4}- ([0-9a-f]{64}) \(([^)]+)\)(?: \[requires >=\d+ GB(?:/gpu| of main memory).*\])?\Z")
HEADINGS = (
    "SYSTEM INFO",
    "- Free GPUs:",
    "- Non-free GPUs:",
    "MODEL PROFILES",
    "- Compatible with system and runnable:",
    "- Compilable to TRT-LLM using just-in-time compilation of HF models to TRTLLM engines:",
    "- Compatible with system but low memory:",
    "- Incompatible with system:",
)
CPU_SECONDS = 1.0


@cache
def _listing(name: str) -> list[str]:
    """Return the text for a described system whose image holds every engine."""
    system, manifest = systems.load(name), load_manifest()
    result = plan_profile(load_settings(environ={}).settings, system, manifest, ALL_ENGINES)
    return list(lines(Listing(system, ALL_ENGINES, manifest, result, 10**9, "")))


def _section(text: list[str], heading: str) -> list[str]:
    """Return the lines from a heading to the next one at its level."""
    start = next(place for place, line in enumerate(text) if line.startswith(heading))
    indent = len(text[start]) - len(text[start].lstrip())
    rest = text[start + 1 :]
    after = [place for place, line in enumerate(rest) if len(line) - len(line.lstrip()) <= indent]
    return rest[: after[0] if after else len(rest)]


@pytest.mark.parametrize("name", systems.names())
def test_headings_and_profile_lines_are_nims(name: str) -> None:
    """On every system: NIM's headings in NIM's order, and each profile on exactly one line of NIM's form."""
    text = _listing(name)
    places = [[line.startswith(heading) for line in text].index(True) for heading in HEADINGS]

    assert places == sorted(places)
    profiles = text[text.index("MODEL PROFILES") : text.index("SELECTED PROFILE")]
    found = [match[1] for line in profiles if (match := PROFILE.match(line))]
    assert sorted(found) == sorted(profile.id for profile in load_manifest().profiles)


@pytest.mark.parametrize("name", systems.names())
def test_every_profile_has_a_reason(name: str) -> None:
    """Every profile stands below a reason, and one that cannot run below a remedy, too."""
    reason = remedy = ""
    seen: set[str] = set()
    text = _listing(name)
    for line in text[text.index("MODEL PROFILES") :]:
        if line.startswith("- "):
            reason = remedy = ""
            seen.clear()
        elif line.lstrip().startswith(("# why: ", "# selected: ")):
            reason, remedy = line, ""
            assert line not in seen, "a reason stands once in its section"
            seen.add(line)
        elif line.lstrip().startswith("# fix: "):
            remedy = line
        elif PROFILE.match(line):
            assert reason, line
            assert remedy or line in "\n".join(_section(text, "- Compatible with system and runnable")), line


def test_gpus_are_listed_as_nim_does() -> None:
    """Device and vendor, index, name, utilisation; a busy GPU is not free, and who holds it is named."""
    free = _section(_listing("h100-sxm-2"), "- Free GPUs:")
    busy = _section(_listing("busy"), "- Non-free GPUs:")

    assert len(free) == 2
    assert re.match(
        r"  -  \[2330:10de\] \(0\) NVIDIA H100 80GB HBM3 \(H100 80GB HBM3\) \[current utilization: \d%\]", free[0]
    )
    assert any("(pid " in line for line in busy)
    assert _section(_listing("none"), "- Free GPUs:") == []


def test_broken_gpu_is_listed_with_its_remedy() -> None:
    """A GPU that was lost is not free, and says why and what helps."""
    text = _section(_listing("gpu-lost"), "- Non-free GPUs:")

    assert any(line.strip().startswith("# why: ") for line in text)
    assert any(line.strip().startswith("# fix: ") for line in text)


def test_lora_profiles_stand_apart() -> None:
    """Profiles with adapters have NIM's own heading among those that run."""
    text = _section(_listing("h100-sxm-1"), "- Compatible with system and runnable")
    place = text.index("  - With LoRA support:")

    assert all("-lora" not in line for line in text[:place])
    assert [line for line in text[place:] if PROFILE.match(line)]
    assert all("-lora" in line for line in text[place:] if PROFILE.match(line))


def test_several_gpus_and_short_memory_are_said_as_nim_says_them() -> None:
    """``per 2 GPUs`` for parallel profiles, and which context would do where memory is short."""
    text = "\n".join(_listing("t4-1") + _listing("l4-1") + _listing("l40s-2"))

    assert re.search(r"-tp2-pp1-\w+\) \[requires >=\d+ GB/gpu per 2 GPUs", text)
    assert re.search(r"try --max-model-len=2048 to reduce to >=\d+ GB/gpu", text)


@pytest.mark.parametrize("name", ["h100-sxm-1", "dgx-spark", "none"])
def test_selected_profile_is_the_plans(name: str) -> None:
    """The last section has the profile of the plan, with its reason."""
    result = plan_profile(load_settings(environ={}).settings, systems.load(name), load_manifest(), ALL_ENGINES)
    text = "\n".join(_listing(name)[_listing(name).index("SELECTED PROFILE") :])

    assert isinstance(result, Plan)
    assert result.profile is not None
    assert f"- {result.profile.id} ({result.profile.name})" in text
    assert f"# why: {result.why}" in text


def test_command_agrees_with_its_json() -> None:
    """The console script lists on this machine what its JSON says, under both of NIM's spellings."""
    text = console.run("list-model-profiles", variables={"NIM_MODEL_VARIANT": "31b"})
    record = json.loads(console.run("nim_list_model_profiles", "--json", "--model", "31b").stdout)

    assert text.returncode == ExitCode.OK
    assert "\x1b" not in text.stdout
    assert record["engines"] == ["llama_cpp"]
    assert len(record["profiles"]) == len(load_manifest().profiles)
    for profile in record["profiles"]:
        assert f"- {profile['id']} ({profile['name']})" in text.stdout
        assert profile["reason"]
        assert profile["remedy"] or profile["verdict"] == "selected"
    verdicts = {profile["verdict"] for profile in record["profiles"]}
    assert verdicts <= {"selected", "runnable", "low-memory", "incompatible"}
    assert record["system"]["cores"] >= 1


@pytest.mark.skipif(library.COMPILER is None, reason="no C compiler (cc) to build the stand-in for NVIDIA's library")
def test_command_asks_the_driver(tmp_path: Path) -> None:
    """Through NVIDIA's own bindings and a stand-in of the driver's library, the console script lists its GPUs."""
    system = systems.describe("l40s-2")
    built = library.compile_library(tmp_path, old_driver=system.old_driver)
    folder = library.lay_out(tmp_path / "driver", built, library.facts(system))
    done = console.run("list-model-profiles", variables={"LD_LIBRARY_PATH": str(folder)})

    assert done.returncode == ExitCode.OK, done.stderr
    assert len(_section(done.stdout.splitlines(), "- Free GPUs:")) == 2
    assert "[26b9:10de] (1) NVIDIA L40S (L40S)" in done.stdout
    assert "- Engines in this image: llama_cpp\n" in done.stdout


def test_what_a_start_serves_is_told() -> None:
    """Without any setting it is the demo model; with a profile named it is that."""
    plain = console.run("list-model-profiles").stdout
    named = console.run("list-model-profiles", variables={"NIM_MODEL_PROFILE": "demo-dense"}).stdout

    assert "- nim-serve starts: demo-moe (" in plain
    assert "- nim-serve starts: demo-dense (NIM_MODEL_PROFILE" in named


def test_unknown_profile_lists_nothing_as_chosen() -> None:
    """A profile that does not exist is said to be so, and every profile is still listed."""
    done = console.run("list-model-profiles", "--json", variables={"NIM_MODEL_PROFILE": "vllm-fp9"})
    record = json.loads(done.stdout)

    assert record["selected"] is None
    assert "vllm-fp9" in record["why"]
    assert {profile["verdict"] for profile in record["profiles"]} == {"not-considered"}


def test_other_manifest(tmp_path: Path) -> None:
    """--manifest-file lists another manifest; a broken one is named with its fault."""
    broken = tmp_path / "manifest.yaml"
    broken.write_text("schema_version: 2.0.0\nprofiles: [{id: abc}]\n")

    done = console.run("list-model-profiles", "--manifest-file", str(broken))

    console.fails_well(done, ExitCode.BAD_SETTINGS, str(broken), "profile 1")


def test_takes_less_than_a_second() -> None:
    """The list costs less than a second of processor time; waiting for a busy machine is not counted."""
    assert best(lambda: console.cpu_seconds("list-model-profiles", "--json"), below=CPU_SECONDS) < CPU_SECONDS


def test_nothing_heavy_is_imported_for_it() -> None:
    """Neither an engine nor the libraries of the API are loaded to list profiles."""
    heavy = {"xllamacpp", "tritonclient", "grpc", "fastapi", "llguidance", "tokenizers", "torch"}
    code = (
        "import sys; from launcher.commands import list_model_profiles; "
        f"sys.exit(','.join(sorted({heavy} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_every_console_script_is_installed() -> None:
    """Each script of the project runs and explains itself in its help."""
    root = Path(__file__).parents[2]
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    missing = [name for name in scripts if not Path(console.script(name)).exists()]

    assert not missing
    assert {
        "nim-serve",
        "list-model-profiles",
        "download-to-cache",
        "create-model-store",
        "check-cache-env",
        "mirror",
    } <= set(scripts)


@pytest.mark.parametrize("name", ["nim-serve", "download-to-cache", "create-model-store", "check-cache-env", "mirror"])
def test_help_is_a_manual(name: str) -> None:
    """--help names the script, what it does, and every option with an explanation."""
    done = console.run(name, "--help", variables={"COLUMNS": "200"})

    assert done.returncode == ExitCode.OK
    assert f"Usage: {name} " in done.stdout
    for line in done.stdout.splitlines():
        option = re.match(r"│ \*?\s*(--[a-z-]+)", line)
        assert option is None or re.search(r"[a-z]{3,}.* [a-z]", line.removeprefix(option[0]), re.IGNORECASE), line
