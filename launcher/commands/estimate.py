"""``estimate``: the plan for a machine that is not here."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from config.environment import load_settings
from config.gpus import read_gpus
from config.manifest import load_manifest
from config.settings import Settings
from launcher.commands.amounts import read_memory, read_tokens
from launcher.commands.choice import accepted, exit_code
from launcher.commands.engines import LIBRARIES
from launcher.commands.options import AsJson
from launcher.commands.plan_page import facts, memory_table, plan_facts
from launcher.errors import ExitCode, LaunchError
from launcher.plan.estimate import imagined_system
from launcher.plan.planner import Plan, Refusal, Rejection, plan_profile

WIDTH: Final = 120
COUNTS: Final = (1, 2, 4, 8)
SHOWN_ALTERNATIVES: Final = 6


def estimate(  # noqa: PLR0913 - each is an option of the command line
    *,
    gpu: Annotated[
        str, typer.Option("--gpu", "-g", metavar="GPUS", help='Such as L4, "2xL40S" or "1xH100,2xL4".')
    ] = "",
    context: Annotated[
        str | None, typer.Option("--context", "-c", metavar="TOKENS", help="Longest request: 8192, 128k.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", metavar="VARIANT", help="26b-a4b or 31b.")] = "26b-a4b",
    precision: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only bf16, fp8, nvfp4, q8_0 or q4_k_m.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only tensorrt_llm, vllm or llama_cpp. Repeatable.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", show_default="64GiB for each GPU", help="Main memory.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Plan for a machine that you do not have: does it fit, with which context, how many at once, and what would help.

    Without --gpu it is a machine without one. The settings of this machine do not count, only these options. The
    machine is taken to be idle, with all engines at hand; nothing is loaded.
    """
    overrides = {"NIM_MODEL_VARIANT": model}
    if context is not None:
        overrides["NIM_MAX_MODEL_LEN"] = str(read_tokens(context, "--context"))
    if precision is not None:
        overrides["NIM_MODEL_PRECISION"] = precision
    size = None if memory is None else read_memory(memory, "--memory")
    settings = load_settings(overrides, environ={}).settings
    result = _plan(settings, gpu, size, _engines(engine))
    more = _more_of_the_same(settings, gpu, result, _engines(engine))
    if as_json:
        sys.stdout.write(json.dumps(_record(result, more), indent=2) + "\n")
        if isinstance(result, Refusal):
            raise typer.Exit(int(exit_code(result)))
        return
    _show(accepted(result), gpu, more)


def _engines(names: list[str] | None) -> frozenset[str]:
    unknown = [name for name in names or () if name not in LIBRARIES]
    if unknown:
        message = f"--engine {unknown[0]!r} is no engine"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, f"use {', '.join(LIBRARIES)}")
    return frozenset(names or LIBRARIES)


def _plan(settings: Settings, gpu: str, memory: int | None, engines: frozenset[str]) -> Plan | Refusal:
    system = imagined_system(gpu, memory)
    # A processor whose features are not known is taken for a usual one.
    usual = replace(system, cpu_features=frozenset({"avx", "avx2", "f16c", "fma"}))
    return plan_profile(settings, usual, load_manifest(), engines)


def _more_of_the_same(
    settings: Settings, gpu: str, result: Plan | Refusal, engines: frozenset[str]
) -> Mapping[str, Plan]:
    """Return the least number of the same GPUs on which everything that was wanted fits, where it does not."""
    if not gpu or (isinstance(result, Plan) and result.gpus and result.context_tokens >= result.wanted_context):
        return {}
    kind = read_gpus(gpu)[0][1]
    given = sum(count for count, _ in read_gpus(gpu))
    for count in COUNTS:
        words = f"{count}x{kind.name}"
        other = _plan(settings, words, None, engines) if count > given else None
        if isinstance(other, Plan) and other.gpus and other.context_tokens >= other.wanted_context:
            return {words: other}
    return {}


def _record(result: Plan | Refusal, more: Mapping[str, Plan]) -> dict[str, Any]:
    fits = {words: plan_facts(plan) for words, plan in more.items()}
    if isinstance(result, Refusal):
        return {"fits": False, "reason": result.reason, "remedy": result.remedy, "plan": None, "would_fit": fits}
    others = [{"name": one.profile.name, "reason": one.reason} for one in _alternatives(result)]
    return {"fits": True, "plan": plan_facts(result), "alternatives": others, "would_fit": fits}


def _show(plan: Plan, gpu: str, more: Mapping[str, Plan]) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, soft_wrap=True)
    console.print(Text(f"{gpu or 'no GPU'}: it fits", "bold green"))
    console.print(facts(plan))
    for note in plan.notes:
        console.print(Text(f"  note      {note}", "yellow"))
    for words, other in more.items():
        console.print(Text(f"  more      {words} would hold {other.context_tokens} tokens, with {_name(other)}"))
    console.print(memory_table(plan.memory, "Memory of each GPU" if plan.gpus else "Main memory"))
    others = _alternatives(plan)
    if others:
        console.print(Text("Other profiles that run there", "bold"))
    for one in others:
        console.print(Text(f"  {one.profile.name}: {one.reason}"))
    console.print(Text(f"\nTo serve it there: NIM_MODEL_PROFILE={_name(plan)} nim-serve"))


def _alternatives(plan: Plan) -> list[Rejection]:
    """Return the other profiles of this model that would do, one for each engine and precision."""
    found: dict[tuple[str, str], Rejection] = {}
    for one in plan.rejected:
        if one.code == "ranked-lower":
            found.setdefault((one.profile.engine, one.profile.precision), one)
    return list(found.values())[:SHOWN_ALTERNATIVES]


def _name(plan: Plan) -> str:
    return plan.profile.name if plan.profile is not None else plan.names[0]
