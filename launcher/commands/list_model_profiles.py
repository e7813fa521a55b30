"""``list-model-profiles``: every profile, whether it runs here, and for each that does not the reason and a remedy."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from config.environment import load_settings
from config.redaction import Redactor
from launcher.commands.choice import Scenery, look_around, own_plan, profile_plan, wants_profile
from launcher.commands.options import AsJson, ManifestFile
from launcher.commands.profile_listing import Listing, is_free, lines
from launcher.errors import LaunchError
from launcher.hardware.system import System
from launcher.plan.assess import requirements
from launcher.plan.planner import Plan, Refusal, Rejection
from launcher.plan.wishes import read_wishes


def list_model_profiles(
    *,
    manifest_file: ManifestFile = None,
    model: Annotated[
        str | None, typer.Option(metavar="VARIANT", help="Only profiles of this Gemma 4: 26b-a4b or 31b.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all profiles: which run on this machine, which would with more memory, which cannot, and why.

    The settings count as they do for a start: NIM_MAX_MODEL_LEN, NIM_TAGS_SELECTOR and the others. Nothing is loaded
    and no GPU is touched, so this takes less than a second.

    To serve one of them, set NIM_MODEL_PROFILE to its id, the beginning of the id, or its name.
    """
    given = (("NIM_MANIFEST_PATH", manifest_file), ("NIM_MODEL_VARIANT", model))
    scenery = look_around(load_settings({name: str(value) for name, value in given if value is not None}))
    result = profile_plan(scenery)
    if as_json:
        sys.stdout.write(json.dumps(_record(scenery, result), indent=2) + "\n")
        return
    required, _ = _requirements(scenery, result)
    starts = _starts(scenery, result)
    listing = Listing(scenery.system, scenery.engines, scenery.manifest, result, required, starts)
    sys.stdout.write("".join(f"{line}\n" for line in lines(listing)))


def _starts(scenery: Scenery, result: Plan | Refusal) -> str:
    """Say what a start would serve."""
    uri = scenery.settings.model.uri
    if uri is not None:
        return f"{Redactor()(uri)}, once it is downloaded"
    if wants_profile(scenery):
        return result.names[0] if isinstance(result, Plan) else "nothing, see above"
    try:
        plan = own_plan(scenery)
    except LaunchError as error:
        return f"nothing: {error.message}"
    hint = "; set NIM_MODEL_PROFILE for one of the profiles above" if scenery.settings.model.path is None else ""
    return f"{plan.names[0]} ({plan.why}{hint})"


def _record(scenery: Scenery, result: Plan | Refusal) -> dict[str, Any]:
    chosen = result.profile if isinstance(result, Plan) else None
    rejected = {one.profile.id: one for one in result.rejected}
    return {
        "system": system_record(scenery.system),
        "engines": sorted(scenery.engines),
        "selected": chosen.id if chosen else None,
        "why": result.why if isinstance(result, Plan) else result.reason,
        "remedy": "" if isinstance(result, Plan) else result.remedy,
        "starts": _starts(scenery, result),
        "profiles": [
            {
                "id": profile.id,
                "name": profile.name,
                "tags": profile.tags,
                "download_bytes": profile.download_size,
                **_verdict(rejected.get(profile.id), result, _requirements(scenery, result)),
            }
            for profile in scenery.manifest.profiles
        ],
    }


def _requirements(scenery: Scenery, result: Plan | Refusal) -> tuple[int, int]:
    """Return the bytes that the chosen profile needs for the wanted and for the smallest context."""
    if isinstance(result, Refusal) or result.profile is None:
        return 0, 0
    return requirements(result.profile, read_wishes(scenery.settings))


def _verdict(rejection: Rejection | None, result: Plan | Refusal, needs: tuple[int, int]) -> dict[str, Any]:
    if rejection is not None:
        return {
            "verdict": str(rejection.verdict),
            "code": rejection.code,
            "reason": rejection.reason,
            "remedy": rejection.remedy,
            "required_bytes": rejection.required_bytes,
            "smallest_bytes": rejection.smallest_bytes,
        }
    if isinstance(result, Plan):
        known = {"verdict": "selected", "code": "", "reason": result.why, "remedy": ""}
        return known | {"required_bytes": needs[0], "smallest_bytes": needs[1]}
    # The settings were refused before any profile was looked at.
    return {"verdict": "not-considered", "code": "settings", "reason": result.reason, "remedy": result.remedy}


def system_record(system: System) -> dict[str, Any]:
    """Return the machine as JSON values."""
    record = asdict(system)
    record["cpu_features"] = sorted(system.cpu_features)
    for entry, gpu in zip(record["gpus"], system.gpus, strict=True):
        entry["nvlink_peers"] = sorted(gpu.nvlink_peers)
        entry["is_free"] = is_free(gpu)
    return record
