"""Paths as the process that runs the model can open them: absolute, and of ASCII alone.

Triton's server runs in a folder of its own, and its Python backend starts an interpreter that takes the names of files
for ASCII, whatever the locale says; a path with other characters is an error there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from config.runtime import AdapterRuntime, EngineRuntime

_OTHER = re.compile(r"[^\x20-\x7e]")


def reachable(runtime: EngineRuntime, links: Path) -> EngineRuntime:
    """Return the runtime with such paths; where one has other characters, a link in the folder ``links`` stands for it.

    Raises:
        OSError: a link cannot be made.
    """
    changes: dict[str, Any] = {}
    for name, value in runtime:
        if isinstance(value, Path):
            changes[name] = _reachable(value, links / name)
        elif name == "adapters" and value is not None:
            changes[name] = _with_source(value, links / name)
    return runtime.model_copy(update=changes)


def _with_source(adapters: AdapterRuntime, folder: Path) -> AdapterRuntime:
    return adapters.model_copy(update={"source": _reachable(adapters.source, folder)})


def _reachable(path: Path, folder: Path) -> Path:
    path = path.expanduser().absolute()
    if not _OTHER.search(str(path)):
        return path
    if _OTHER.search(path.name):
        return _link(folder / _OTHER.sub("_", path.name), path)
    # The folder, not the file: a model may have its other parts beside it.
    return _link(folder / "folder", path.parent) / path.name


def _link(link: Path, target: Path) -> Path:
    link = link.absolute()
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    return link
