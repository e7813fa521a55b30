"""Which profiles the settings allow: ``NIM_MODEL_PROFILE`` by id, beginning of an id or name, and tags.

What cannot be meant is refused with the nearest names; wishes that contradict each other are named together.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from config.manifest import Manifest, Profile
from launcher.plan.adapters import SOURCE
from launcher.plan.result import Refusal
from launcher.plan.wishes import TagWish, Wishes

SHORTEST_PREFIX: Final = 4
_HEXADECIMAL: Final = re.compile(r"[0-9a-f]{%d,64}\Z" % SHORTEST_PREFIX)  # noqa: UP031 - braces are part of the pattern


@dataclass(frozen=True, slots=True)
class Selection:
    """What the settings allow.

    Attributes:
        named: the profiles that ``NIM_MODEL_PROFILE`` stands for; None when it is not set.
        full: whether it stands for exactly one.
        tags: what the profile must have.
    """

    named: frozenset[str] | None
    full: bool
    tags: tuple[TagWish, ...]

    def objection(self, profile: Profile) -> TagWish | None:
        """Return the first wish that the profile does not meet."""
        return next((wish for wish in self.tags if profile.tags.get(wish.tag) != wish.value), None)

    def allows(self, profile: Profile) -> bool:
        """Tell whether the profile is named (or none is) and has all tags."""
        return (self.named is None or profile.id in self.named) and self.objection(profile) is None

    def asks_for(self, tag: str) -> bool:
        """Tell whether a tag was asked for by name."""
        return any(wish.tag == tag for wish in self.tags)


def select(manifest: Manifest, wishes: Wishes) -> Selection | Refusal:
    """Work out which profiles the settings allow, or why none is meant."""
    refusal = _check_tags(manifest, wishes.tags)
    if refusal is not None:
        return refusal
    named: frozenset[str] | None = None
    full = False
    if wishes.profile is not None:
        found = _find(manifest, wishes.profile)
        if isinstance(found, Refusal):
            return found
        refusal = _check_named(found, wishes)
        if refusal is not None:
            return refusal
        named, full = frozenset(profile.id for profile in found), len(found) == 1
    selection = Selection(named, full, wishes.tags)
    if not any(selection.allows(profile) for profile in manifest.profiles):
        return _nothing_left(manifest, wishes.tags)
    return selection


def _find(manifest: Manifest, wanted: str) -> Sequence[Profile] | Refusal:
    text = wanted.strip()
    for found in (
        [profile for profile in manifest.profiles if text in (profile.id, profile.name)],
        [profile for profile in manifest.profiles if profile.short_name == text],
    ):
        if found:
            return found
    lower = text.lower()
    if _HEXADECIMAL.match(lower):
        found = [profile for profile in manifest.profiles if profile.id.startswith(lower)]
        if len(found) == 1:
            return found
        if found:
            listed = ", ".join(f"{profile.id[: len(lower) + 6]} ({profile.name})" for profile in found[:4])
            return Refusal(
                f"NIM_MODEL_PROFILE={text} is the beginning of {len(found)} ids: {listed}",
                "give more letters of the id, or the name",
            )
    return _unknown(manifest, text)


def _unknown(manifest: Manifest, text: str) -> Refusal:
    names = list(dict.fromkeys(name for item in manifest.profiles for name in (item.name, item.short_name)))
    near = difflib.get_close_matches(text, names, n=4, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else "use a name or an id from the list:"
    return Refusal(
        f"NIM_MODEL_PROFILE={text} is neither the id, nor the beginning of an id, nor the name of a profile",
        f"{advice} `list-model-profiles` shows all of them",
    )


def _check_tags(manifest: Manifest, tags: Sequence[TagWish]) -> Refusal | None:
    seen: dict[str, TagWish] = {}
    for wish in tags:
        known = {profile.tags[wish.tag] for profile in manifest.profiles if wish.tag in profile.tags}
        if not known:
            names = sorted({tag for profile in manifest.profiles for tag in profile.tags})
            near = difflib.get_close_matches(wish.tag, names, n=3, cutoff=0.5) or names
            return Refusal(f"{_said(wish)}: no profile has this tag", f"use {', '.join(near)}")
        if wish.value not in known:
            return Refusal(f"{_said(wish)}: no profile has this value", f"use one of {', '.join(sorted(known))}")
        before = seen.setdefault(wish.tag, wish)
        if before.value != wish.value:
            return Refusal(
                f"{_said(before)} and {_said(wish)} contradict each other",
                f"unset {wish.variable}, or give both the same value",
            )
    return None


def _check_named(found: Sequence[Profile], wishes: Wishes) -> Refusal | None:
    for wish in wishes.tags:
        if not any(profile.tags.get(wish.tag) == wish.value for profile in found):
            has = found[0].tags.get(wish.tag, "nothing")
            return Refusal(
                f"NIM_MODEL_PROFILE={wishes.profile} has {wish.tag}={has}, but {_said(wish)}",
                f"unset {wish.variable} or NIM_MODEL_PROFILE",
            )
    return None


def _nothing_left(manifest: Manifest, tags: Sequence[TagWish]) -> Refusal:
    """Name the wishes that no profile has together: two of them where two suffice, else all."""
    pairs = [(one, other) for index, one in enumerate(tags) for other in tags[index + 1 :]]
    for one, other in pairs:
        if not any(_has(profile, one) and _has(profile, other) for profile in manifest.profiles):
            return Refusal(
                f"no profile has both {_said(one)} and {_said(other)}",
                f"unset {one.variable if one.variable == other.variable else f'{one.variable} or {other.variable}'}",
            )
    listed = ", ".join(_said(wish) for wish in tags)
    return Refusal(f"no profile has all of {listed}", "leave one of them out")


def _has(profile: Profile, wish: TagWish) -> bool:
    return profile.tags.get(wish.tag) == wish.value


def _said(wish: TagWish) -> str:
    if wish.variable == "NIM_TAGS_SELECTOR":
        return f"NIM_TAGS_SELECTOR={wish.tag}={wish.value}"
    if wish.variable == SOURCE:
        return f"{SOURCE}, which needs {wish.tag}={wish.value}"
    return f"{wish.variable}={wish.value}"
