"""``explain PROFILE``: what a profile is, what it takes, and why it is or is not what runs here."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from config.manifest import Profile
from config.variants import find_variant
from launcher.commands.choice import Scenery, find_profile, look_around, profile_plan, with_settings
from launcher.commands.options import AsJson
from launcher.commands.plan_page import facts, memory_record, memory_table, plan_facts
from launcher.commands.storage import cache_of
from launcher.download.stock import Presence, presence, take_stock
from launcher.errors import LaunchError
from launcher.memory import MemoryEstimate, estimate_memory, variant_shape
from launcher.memory_gpu import estimate_gpu
from launcher.plan.fit import CPU_SEQUENCES, frugal_loads, wanted_context
from launcher.plan.planner import Plan, Refusal, Rejection
from launcher.plan.wishes import read_wishes

WIDTH: Final = 120
CPU_ENGINE: Final = "llama_cpp"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one profile here.

    Attributes:
        is_chosen: it is what the choice among profiles takes with these settings.
        why: the reason for what is chosen, or for nothing being chosen.
        rejection: why it is not.
        alone: the plan if it is named, or why it cannot run even then.
        memory: what it takes with the wanted context, where it cannot be planned.
        cached: in words, how much of it the cache has.
    """

    profile: Profile
    is_chosen: bool
    why: str
    rejection: Rejection | None
    alone: Plan | Refusal
    memory: MemoryEstimate
    cached: str


def explain(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="Id, the beginning of one, or name.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Explain a profile: what it is, its files, the memory it takes, and why it is or is not chosen on this machine.

    The settings count as they do for a start.
    """
    scenery = look_around()
    found = _explanation(scenery, find_profile(scenery.manifest, profile))
    if as_json:
        sys.stdout.write(json.dumps(_record(found), indent=2) + "\n")
    else:
        _show(found)


def _explanation(scenery: Scenery, profile: Profile) -> Explanation:
    result = profile_plan(scenery)
    rejection = next((one for one in result.rejected if one.profile.id == profile.id), None)
    alone = profile_plan(with_settings(scenery, {"NIM_MODEL_PROFILE": profile.id}))
    return Explanation(
        profile=profile,
        is_chosen=isinstance(result, Plan) and result.profile is not None and result.profile.id == profile.id,
        why=result.why if isinstance(result, Plan) else result.reason,
        rejection=rejection,
        alone=alone,
        memory=alone.memory if isinstance(alone, Plan) else _memory(scenery, profile),
        cached=_cached(scenery, profile),
    )


def _memory(scenery: Scenery, profile: Profile) -> MemoryEstimate:
    """Estimate what a profile takes that does not run here: with the wanted context and one sequence."""
    wishes = read_wishes(scenery.settings)
    if profile.engine != CPU_ENGINE:
        return estimate_gpu(frugal_loads(profile, wishes)[0], wanted_context(wishes, on_gpu=True))
    shape = variant_shape(find_variant(profile.variant))
    sequences = wishes.sequences or CPU_SEQUENCES.get(profile.objective, 1)
    return estimate_memory(shape, profile.download_size, wanted_context(wishes, on_gpu=False), sequences)


def _cached(scenery: Scenery, profile: Profile) -> str:
    try:
        stock = take_stock(profile.files, cache_of(scenery.settings), offline=True)
    except LaunchError as error:
        return error.message
    if stock.unlisted or not stock.entries:
        return "nothing of it"
    present = sum(1 for entry in stock.entries if presence(entry) is not Presence.MISSING)
    return f"{present} of {len(stock.entries)} files"


def _show(found: Explanation) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, soft_wrap=True)
    console.print(Text(found.profile.name, "bold"))
    table = Table.grid(padding=(0, 2))
    for name, text in _rows(found):
        table.add_row(f"  [bold]{name}[/bold]", escape(text))
    console.print(table)
    console.print(Text("Files", "bold"))
    for file in found.profile.files:
        size = f"{file.planned_size / 1e9:.2f} GB" if file.planned_size else "size at download"
        exact = "" if file.size is not None else "about "
        patterns = f" ({', '.join(file.include)})" if file.include else ""
        console.print(Text(f"  {file.path}  {exact}{size}  {file.uri}{patterns}"))
    if isinstance(found.alone, Plan):
        console.print(Text("If it is chosen", "bold"))
        console.print(facts(found.alone))
        for note in found.alone.notes:
            console.print(Text(f"  note      {note}", "yellow"))
    title = "Main memory" if found.profile.engine == CPU_ENGINE else "Memory of each GPU"
    console.print(memory_table(found.memory, title))


def _rows(found: Explanation) -> list[tuple[str, str]]:
    profile = found.profile
    return [
        ("id", profile.id),
        ("model", _model(profile)),
        ("engine", f"{profile.engine} on {_devices(profile)}"),
        ("weights", f"{profile.precision}, made for {profile.objective}{_features(profile)}"),
        ("tags", ", ".join(f"{name}={value}" for name, value in profile.tags.items())),
        ("download", f"about {profile.download_size / 1e9:.1f} GB; the cache has {found.cached}"),
        *([("unproven", profile.unproven)] if profile.unproven else []),
        *_verdict(found),
    ]


def _model(profile: Profile) -> str:
    variant = find_variant(profile.variant)
    parameters = f"{(variant.text_parameters + variant.vision_parameters) / 1e9:.1f} billion parameters"
    kind = f"{variant.experts} experts, {variant.active_experts} at work" if variant.experts else "dense"
    return f"{variant.names[0]}: {parameters}, {kind}, {variant.layers} layers, pictures"


def _devices(profile: Profile) -> str:
    if profile.engine == CPU_ENGINE:
        return "the processor"
    return f"{profile.tensor_parallel} GPU{'s' if profile.tensor_parallel > 1 else ''}"


def _features(profile: Profile) -> str:
    lora = f", LoRA adapters up to rank {profile.tags.get('feat_lora_max_rank', '32')}" if profile.lora else ""
    return lora + (", a draft model proposes tokens" if profile.mtp else "")


def _verdict(found: Explanation) -> list[tuple[str, str]]:
    if found.is_chosen:
        return [("here", f"it is the one that is chosen: {found.why}")]
    if found.rejection is None:
        refused = found.alone if isinstance(found.alone, Refusal) else None
        return [("here", refused.reason), ("remedy", refused.remedy)] if refused else [("here", "it would run")]
    words = {
        "runnable": "it would run, but is not chosen",
        "low-memory": "too little memory",
        "incompatible": "cannot run",
    }
    verdict = words[str(found.rejection.verdict)]
    return [("here", f"{verdict}: {found.rejection.reason}"), ("remedy", found.rejection.remedy)]


def _record(found: Explanation) -> dict[str, Any]:
    profile, rejection = found.profile, found.rejection
    return {
        "id": profile.id,
        "name": profile.name,
        "tags": profile.tags,
        "model": _model(profile),
        "unproven": profile.unproven,
        "download_bytes": profile.download_size,
        "cached": found.cached,
        "files": [file.model_dump(mode="json") for file in profile.files],
        "selected": found.is_chosen,
        "verdict": "selected" if found.is_chosen else str(rejection.verdict) if rejection else "not-considered",
        "code": rejection.code if rejection else "",
        "reason": rejection.reason if rejection else getattr(found.alone, "reason", ""),
        "remedy": rejection.remedy if rejection else getattr(found.alone, "remedy", ""),
        "plan_if_named": plan_facts(found.alone) if isinstance(found.alone, Plan) else None,
        "memory_bytes": memory_record(found.memory),
    }
