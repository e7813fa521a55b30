"""One file to fetch, fully known: where it comes from, what it must be, and where it ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from launcher.cache.records import Checksum
from launcher.download.credentials import Credential
from launcher.download.refusals import Subject


@dataclass(frozen=True, slots=True)
class Location:
    """Where a file can be had, with which credential, and what it is called in messages."""

    url: str
    credential: Credential
    subject: Subject


@dataclass(frozen=True, slots=True)
class Asset:
    """A file to fetch.

    Attributes:
        name: its path in the workspace.
        size: bytes.
        checksum: what it must be; None if neither the manifest nor the source says.
        validator: the source's mark of this version (ETag); guards files without checksum against mixing versions.
        blob: where the finished file goes; its parts lie beside it until then.
        record: where its record goes.
    """

    name: str
    location: Location
    size: int
    checksum: Checksum | None
    validator: str | None
    blob: Path
    record: Path

    @property
    def identity(self) -> str:
        """What an unfinished file must have been begun for, to be gone on with."""
        if self.checksum is not None:
            return self.checksum.identity
        return f"{self.location.url.partition('?')[0]} {self.validator}"
