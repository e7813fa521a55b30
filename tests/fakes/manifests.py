"""Manifests for tests: profiles whose files lie on a local server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from config.manifest import FileEntry, Workspace, content_id

TAGS = {
    "llm_engine": "llama_cpp",
    "model_variant": "26b-a4b",
    "precision": "q4_k_m",
    "profile": "latency",
    "tp": "1",
    "pp": "1",
    "feat_lora": "false",
    "feat_mtp": "false",
}


def file_entry(url: str, path: Path) -> FileEntry:
    """Describe a file exactly: where it is, how long, and its checksum."""
    checksum = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return FileEntry(uri=f"{url}/{path.name}", checksum=checksum, size=path.stat().st_size)


def write_manifest(path: Path, *profiles: tuple[Mapping[str, str], Mapping[str, FileEntry]]) -> list[str]:
    """Write a manifest with these tags (beside the usual ones) and files; return the ids."""
    entries = []
    for tags, files in profiles:
        workspace, known = Workspace(files=dict(files)), TAGS | dict(tags)
        plain = workspace.model_dump(mode="json", exclude_defaults=True)
        entries.append({"id": content_id(known, workspace), "tags": known, "workspace": plain})
    path.write_text(json.dumps({"schema_version": "2.0.0", "profiles": entries}))
    return [str(entry["id"]) for entry in entries]
