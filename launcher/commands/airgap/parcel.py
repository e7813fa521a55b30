"""The folder that is carried to a site without network: what lies where in it, its record, and its checksums.

images.txt            the images that the site's registry needs, one a line
images/               archives of them, if there are any: whatever their maker put here
chart/NAME/           the chart
models/               the model store: a cache, to be mounted as it is
model_manifest.yaml   the manifest that the profiles are of
values.yaml           the chart's values for the site, to be completed
airgap.json           what was exported
SHA256SUMS            of every file above, as sha256sum reads it
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from launcher.errors import ExitCode, LaunchError

SUMS: Final = "SHA256SUMS"
RECORD: Final = "airgap.json"
IMAGES: Final = "images.txt"
ARCHIVES: Final = "images"
CHART: Final = "chart"
MODELS: Final = "models"
MANIFEST: Final = "model_manifest.yaml"
VALUES: Final = "values.yaml"
_OWN_FOLDERS: Final = (".gemma4-nim", "workspaces")
"""In the model store: locks, and what is made anew for each machine."""
_CHUNK: Final = 4 * 1024 * 1024

Counter = Callable[[int], object]
"""Gets the bytes that were read since the last call."""


class Record(BaseModel):
    """What was exported.

    Attributes:
        has_own_manifest: the profiles are of a manifest that the site cannot know otherwise.
        links: those of the model store, name to target; a copy without them would be refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    version: str
    profiles: tuple[str, ...] = ()
    model_uri: str | None = None
    images: tuple[str, ...] = ()
    chart: str | None = None
    has_own_manifest: bool = False
    links: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check saw.

    Attributes:
        damaged: files whose content is another one, or links that lead elsewhere.
        missing: files and links that are listed and not there.
        unknown: files that are there and not listed.
    """

    checked: int
    damaged: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def read_record(folder: Path) -> Record:
    """Return the record of an exported folder.

    Raises:
        LaunchError: there is none, or it cannot be read.
    """
    path = folder / RECORD
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        message = f"{folder} was not made by gemma4-nim airgap export: {path.name} cannot be read ({error.strerror})"
        raise LaunchError(ExitCode.NOT_FOUND, message, "name the folder that was exported") from error
    except ValidationError as error:
        message = f"{path} is damaged, or of another version of gemma4-nim"
        raise LaunchError(ExitCode.CANNOT_START, message, "copy or export it again") from error


def write_record(folder: Path, record: Record) -> None:
    """Write the record, with the links of the model store as they are now."""
    links = {str(path.relative_to(folder)): str(path.readlink()) for path in _paths(folder) if path.is_symlink()}
    complete = record.model_copy(update={"links": links})
    (folder / RECORD).write_text(json.dumps(complete.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")


def write_sums(folder: Path, count: Counter) -> int:
    """Write the checksums of all files and return how many there are."""
    lines = [f"{_digest(path, count)}  {path.relative_to(folder)}\n" for path in files(folder)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    return len(lines)


def check_sums(folder: Path, record: Record, count: Counter) -> Findings:
    """Read every file and compare it with its checksum.

    Raises:
        LaunchError: the checksums cannot be read.
    """
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
        listed = {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines())}
    except (OSError, UnicodeDecodeError) as error:
        message = f"{folder / SUMS} cannot be read"
        raise LaunchError(ExitCode.CANNOT_START, message, "copy or export the folder again") from error
    here = {str(path.relative_to(folder)): path for path in files(folder)}
    damaged = [name for name, path in here.items() if name in listed and _digest(path, count) != listed[name]]
    missing = [name for name in listed if name not in here]
    for name, goal in record.links.items():
        path = folder / name
        if not path.is_symlink():
            missing.append(name)
        elif str(path.readlink()) != goal:
            damaged.append(name)
    return Findings(len(here), tuple(damaged), tuple(missing), tuple(name for name in here if name not in listed))


def files(folder: Path) -> list[Path]:
    """Return every file that belongs to the folder, in a fixed order."""
    return [path for path in _paths(folder) if path.is_file() and not path.is_symlink() and path != folder / SUMS]


def total_bytes(folder: Path) -> int:
    """Return how many bytes all files together have."""
    return sum(path.stat().st_size for path in files(folder))


def _paths(folder: Path) -> Iterator[Path]:
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _OWN_FOLDERS)
        # A link to a folder is listed among the folders, and never followed.
        links = [name for name in folders if Path(top, name).is_symlink()]
        yield from (Path(top, name) for name in sorted([*names, *links]))


def _digest(path: Path, count: Counter) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            digest.update(data)
            count(len(data))
    return digest.hexdigest()
