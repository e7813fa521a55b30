"""Checks of what would be served: the plan and its memory, the model's files, the cache and its disk."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.cache.report import inspect_cache
from launcher.cache.store import gigabytes
from launcher.commands.choice import Scenery, accepted, own_plan, profile_plan, wants_profile
from launcher.commands.doctor.findings import Findings, failure, fine, note
from launcher.commands.fetching import requests_for
from launcher.commands.plan_page import where
from launcher.commands.storage import cache_of, is_offline
from launcher.download.stock import Entry, Presence, WantedFile, presence, take_stock
from launcher.errors import LaunchError, NotFoundError
from launcher.plan.adapters import check_adapter_folder
from launcher.plan.planner import Plan, gib


def plan_for(scenery: Scenery) -> Plan | LaunchError | None:
    """Return the plan of a start, why there is none, or None where it is only known after a download."""
    uri = scenery.settings.model.uri
    try:
        check_adapter_folder(scenery.settings)
        if wants_profile(scenery):
            return accepted(profile_plan(scenery))
        if uri is None:
            return own_plan(scenery)
        requests_for(uri)  # an address that cannot be read is found here
    except LaunchError as error:
        return error
    return None


def check_plan(plan: Plan | LaunchError | None) -> Findings:
    """Tell what would be served, and whether memory suffices."""
    if isinstance(plan, LaunchError):
        yield failure("model", plan)
        return
    if plan is None:
        yield note("model", "it is named by its address, so it can be looked at only when it is downloaded")
        return
    yield fine("model", f"{plan.names[0]}: {plan.why}")
    available = "unknown" if plan.memory_available is None else gib(plan.memory_available)
    total = f"{gib(plan.memory.total)} of {available} on {where(plan)}"
    yield fine("memory", f"{total}: {plan.max_sequences} at once, {plan.context_tokens} tokens of context")
    for line in plan.notes:
        yield note("memory" if "memory" in line else "model", line)


def check_cache(scenery: Scenery) -> Findings:
    """See that the cache answers and can be written; where it is only read, that is no fault."""
    report = inspect_cache(cache_of(scenery.settings))
    for problem in report.problems:
        if _writes(scenery):
            yield failure("cache", problem)
        else:
            yield note(
                "cache", f"{problem.message}; nothing has to be written there with these settings", problem.remedy
            )
    if not report.problems:
        free = "" if report.free_bytes is None else f", {gigabytes(report.free_bytes)} free"
        yield fine("cache", f"{report.root} can be written{free}")
    for remark in report.remarks:
        yield note("cache", remark)


def check_files(scenery: Scenery, plan: Plan | LaunchError | None) -> Findings:
    """See whether the model's files are there, or can come."""
    if not isinstance(plan, Plan):
        return
    if plan.profile is None:
        yield fine("files", str(plan.model.weights))
        return
    missing = missing_bytes(scenery, plan)
    if missing == 0:
        yield fine("files", f"all files of {plan.profile.name} are in the cache")
        return
    if is_offline(scenery.settings):
        error = NotFoundError(
            f"the cache lacks files of {plan.profile.name}, and nothing may be downloaded",
            "run download-to-cache where there is a network, or unset NIM_OFFLINE and NIM_DISABLE_MODEL_DOWNLOAD",
        )
        yield failure("files", error)
        return
    try:
        cache_of(scenery.settings).check_space(missing)
    except LaunchError as error:
        yield failure("disk", error)
        return
    yield note(
        "files", f"about {gigabytes(missing)} will be downloaded at the first start", "or now: download-to-cache"
    )


def missing_bytes(scenery: Scenery, plan: Plan | LaunchError | None) -> int:
    """Return about how much of a profile's files the cache lacks; sizes that are not known count as planned."""
    if not isinstance(plan, Plan) or plan.profile is None:
        return 0
    absent, unlisted = _missing(scenery, plan.profile.files)
    planned = {file.path: file.planned_size for file in plan.profile.files}
    sizes = [entry.size or planned.get(entry.name, 0) for entry in absent]
    return sum(sizes) + sum(planned.get(file.path, 0) for file in unlisted)


def addresses_to_ask(scenery: Scenery, plan: Plan | LaunchError | None) -> tuple[str, ...]:
    """Return the addresses that a start would have to ask, because the cache lacks something of the model."""
    uri = scenery.settings.model.uri
    try:
        if uri is not None:
            return (uri,) if any(_missing(scenery, requests_for(uri))) else ()
    except LaunchError:
        return ()  # that is what plan_for finds
    if not isinstance(plan, Plan) or plan.profile is None or not any(_missing(scenery, plan.profile.files)):
        return ()
    return tuple(file.uri for file in plan.profile.files)


def _missing(scenery: Scenery, files: Sequence[WantedFile]) -> tuple[list[Entry], Sequence[WantedFile]]:
    """Return the files that the cache lacks, and those of which not even the names are known."""
    stock = take_stock(files, cache_of(scenery.settings), offline=True)
    return [entry for entry in stock.entries if presence(entry) is Presence.MISSING], stock.unlisted


def _writes(scenery: Scenery) -> bool:
    settings = scenery.settings
    return not is_offline(settings) and (settings.model.uri is not None or wants_profile(scenery))
