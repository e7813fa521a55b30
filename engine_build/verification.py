"""Checks a bundle before it is used: every file against its checksum, and what it was made for against what is here.

Reading many gigabytes takes minutes, so what was read once is remembered outside the bundle by size, times and inode:
a later start reads only what changed. Whoever doubts that asks for everything to be read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_build.checksums import Advance, FileRecord, record_file
from engine_build.errors import BundleError
from engine_build.fingerprint import Difference, Fingerprint, differences
from engine_build.json_file import replacing
from engine_build.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not as it was built."""

    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name} {self.what}"


def check_files(
    folder: Path, records: Mapping[str, FileRecord], receipt: Path | None = None, advance: Advance | None = None
) -> tuple[Damage, ...]:
    """Return every file that is missing or not as it was built.

    Args:
        folder: what the names are relative to.
        records: what each file must be.
        receipt: remembers what was read; None reads everything and remembers nothing.
        advance: is told the bytes that are done.
    """
    known = {} if receipt is None else _read_receipt(receipt)
    seen: dict[str, list[int]] = {}
    damages: list[Damage] = []
    for name, record in sorted(records.items()):
        try:
            marks = _marks(folder / name)
            if marks[0] != record.size:
                damages.append(Damage(name, f"has {marks[0]} bytes, not {record.size}"))
                continue
            if known.get(name) == [*marks, record.sha256]:
                if advance is not None:
                    advance(record.size)
            elif record_file(folder / name, advance).sha256 != record.sha256:
                damages.append(Damage(name, "was changed: its SHA-256 is another"))
                continue
        except FileNotFoundError:
            damages.append(Damage(name, "is missing"))
            continue
        except OSError as error:
            damages.append(Damage(name, f"cannot be read: {error.strerror}"))
            continue
        seen[name] = marks
    if receipt is not None and not damages:
        _write_receipt(receipt, {name: [*marks, records[name].sha256] for name, marks in seen.items()})
    return tuple(damages)


def check_match(manifest: Manifest, here: Fingerprint) -> None:
    """See that a bundle is complete and was made for what is here.

    Raises:
        BundleError: it was not; the message names each difference.
    """
    name = manifest.bundle_id
    if manifest.stage != "complete":
        raise BundleError(f"the bundle {name} is only prebuilt: {', '.join(manifest.pending)} are left to do")
    found = differences(manifest.fingerprint, here)
    if found:
        raise BundleError(f"the bundle {name} was made for something else: {listed(found, len(found))}")


def listed(items: tuple[Damage, ...] | tuple[Difference, ...], shown: int = 5) -> str:
    """Return the first few as one text, and how many more there are."""
    more = f"; and {len(items) - shown} more" if len(items) > shown else ""
    return "; ".join(str(item) for item in items[:shown]) + more


def _marks(path: Path) -> list[int]:
    facts = path.stat()
    # Whoever can set a file's modification time cannot set its change time.
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]


def _read_receipt(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_receipt(path: Path, content: Mapping[str, list[Any]]) -> None:
    # A volume that cannot be written is read again at every start.
    with contextlib.suppress(OSError), replacing(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
