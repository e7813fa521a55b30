"""Chooses among the profiles that would run, and says of each other one why it was not chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from config.manifest import Manifest, Profile
from config.variants import DEFAULT_PROFILE, DEFAULT_VARIANT
from launcher.plan.assess import Assessment, Scene, assess
from launcher.plan.ranking import CRITERIA, Support
from launcher.plan.remedies import ENGINE_NAMES, by_name, hardware_remedy
from launcher.plan.result import Refusal, Rejection, Verdict
from launcher.plan.selection import Selection


@dataclass(frozen=True, slots=True)
class Choice:
    """The profile to run, why it is none of the others, and those that would run, too, the best first."""

    chosen: Assessment
    rejected: tuple[Rejection, ...]
    runnable: tuple[Assessment, ...]


def choose(manifest: Manifest, scene: Scene, selection: Selection) -> Choice | Refusal:
    """Return the choice, or why nothing can be chosen."""
    found = [assess(profile, scene) for profile in manifest.profiles]
    variant = _variant(manifest)
    # Sorting is stable: profiles of equal rank stay in the manifest's order.
    runnable = sorted((one for one in found if one.verdict is Verdict.RUNNABLE), key=lambda one: one.rank, reverse=True)
    allowed = [one for one in runnable if not _objection(one, selection, variant)]
    chosen = allowed[0] if allowed else None
    rejected = tuple(
        _rejection(one, scene, selection, (runnable, chosen, variant)) for one in found if one is not chosen
    )
    if chosen is None:
        return _refusal(list(zip(found, rejected, strict=True)), selection, variant)
    return Choice(chosen, rejected, tuple(runnable))


def _variant(manifest: Manifest) -> str:
    variants = [profile.variant for profile in manifest.profiles]
    return DEFAULT_VARIANT if DEFAULT_VARIANT in variants or not variants else variants[0]


def _objection(one: Assessment, selection: Selection, variant: str) -> tuple[str, str, str] | None:
    """Return why a profile that would run is out of the question: code, reason and remedy."""
    profile = one.profile
    wish = selection.objection(profile)
    if wish is not None:
        has = profile.tags.get(wish.tag, "no such tag")
        reason = f"{wish.variable} asks for {wish.tag}={wish.value}, and this has {has}"
        variables = [other.variable for other in selection.tags if profile.tags.get(other.tag) != other.value]
        return "tags", reason, by_name(profile, *variables)
    if selection.named is not None and profile.id not in selection.named:
        return "not-named", "NIM_MODEL_PROFILE names another profile", by_name(profile)
    if one.code == "unproven" and selection.named is None:
        return "unproven", one.reason, f"to try it all the same, {by_name(profile)}"
    if selection.full:
        return None
    if profile.variant != variant and not selection.asks_for("model_variant"):
        reason = f"the {variant} is served unless something else is said"
        return "variant", reason, f"set NIM_MODEL_VARIANT={profile.variant}, or {by_name(profile)}"
    return _feature_objection(profile, selection)


def _feature_objection(profile: Profile, selection: Selection) -> tuple[str, str, str] | None:
    if selection.named is not None:
        return None
    if profile.lora and not selection.asks_for("feat_lora"):
        return "lora", "LoRA adapters were not asked for, and room for them costs memory", by_name(profile)
    if profile.mtp and not selection.asks_for("feat_mtp"):
        reason = "a draft model was not asked for: with grammars, as for tool calls, it is known to fail upstream"
        return "mtp", reason, by_name(profile)
    return None


def _rejection(
    one: Assessment, scene: Scene, selection: Selection, others: tuple[Sequence[Assessment], Assessment | None, str]
) -> Rejection:
    runnable, chosen, variant = others
    if one.verdict is not Verdict.RUNNABLE:
        remedy = hardware_remedy(one, scene, runnable)
        return Rejection(one.profile, one.verdict, one.code, one.reason, remedy, one.required_bytes, one.smallest_bytes)
    objection = _objection(one, selection, variant)
    if objection is None:
        if chosen is None:
            raise AssertionError("a profile without objection is chosen when there is no better one")
        objection = ("ranked-lower", _why_lower(one, chosen), by_name(one.profile))
    code, reason, remedy = objection
    return Rejection(one.profile, one.verdict, code, reason, remedy, one.required_bytes, one.smallest_bytes)


def _why_lower(one: Assessment, chosen: Assessment) -> str:
    """Name the first criterion by which the chosen profile is better."""
    best = chosen.profile
    criterion = next((name for name, a, b in zip(CRITERIA, one.rank, chosen.rank, strict=True) if a != b), "order")
    return {
        "device": "a GPU is faster than the processor" if chosen.gpu else "the estimate says that it does not fit",
        "context": f"it has room for {one.context} tokens of context, {best.name} for {chosen.context}",
        "precision": _why_precision(one, best),
        "engine": f"{ENGINE_NAMES.get(best.engine, best.engine)} is preferred on these GPUs",
        "objective": "short answer times are preferred unless NIM_PERF_PROFILE=throughput",
        "parallelism": _why_count(one.profile, best),
        "order": f"{best.name} is as good and comes first",
    }[criterion]


def _why_precision(one: Assessment, best: Profile) -> str:
    mine = one.profile.precision
    if one.ability is not None and not one.ability.native:
        return f"these GPUs only emulate {mine}, and {best.precision} fits"
    return f"{best.precision} reads fewer bytes for each token than {mine}"


def _why_count(mine: Profile, best: Profile) -> str:
    if mine.tensor_parallel < best.tensor_parallel:
        return f"{best.tensor_parallel} GPUs, linked by NVLink, shorten answers"
    return f"{best.tensor_parallel} of the GPUs suffice, and more do not shorten answers"


def _refusal(pairs: list[tuple[Assessment, Rejection]], selection: Selection, variant: str) -> Refusal:
    """Say why nothing runs by the profile that came closest among those that were asked for."""
    rejected = tuple(rejection for _, rejection in pairs)
    meant = [
        pair
        for pair in pairs
        if selection.allows(pair[1].profile)
        and (selection.named is not None or selection.asks_for("model_variant") or pair[1].profile.variant == variant)
    ]
    order = {Verdict.RUNNABLE: 0, Verdict.LOW_MEMORY: 1, Verdict.INCOMPATIBLE: 2}

    def distance(pair: tuple[Assessment, Rejection]) -> tuple[int, bool, bool, int]:
        found, rejection = pair
        is_strange = found.code == "engine-missing" or found.support is Support.UNPROVEN
        extra = found.profile.lora or found.profile.mtp
        # Where GPUs are missing, the fewest come closest, and not the smallest share of many.
        count = found.profile.tensor_parallel if rejection.verdict is Verdict.INCOMPATIBLE else 1
        return order[rejection.verdict], is_strange, extra, rejection.smallest_bytes * count

    _, closest = min(meant or pairs, key=distance)
    if selection.full:
        return Refusal(
            f"{closest.profile.name} cannot run here: {closest.reason}", closest.remedy, rejected, closest.code
        )
    reason = f"no profile can run here; {closest.profile.name} came closest: {closest.reason}"
    demo = f"; NIM_MODEL_PROFILE={DEFAULT_PROFILE} serves a very small model that only shows how everything works"
    is_last_resort = not any(found.verdict is Verdict.RUNNABLE for found, _ in pairs)
    return Refusal(reason, closest.remedy + (demo if is_last_resort else ""), rejected, closest.code)
