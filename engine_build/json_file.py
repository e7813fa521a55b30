"""Reading and replacing small files of a checkpoint directory. It owns no format beyond JSON."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine_build.errors import EngineBuildError


def read_json_object(path: Path, error: type[EngineBuildError]) -> dict[str, Any]:
    """Return the JSON object that ``path`` holds.

    Raises:
        EngineBuildError: of the class ``error``, when the file is missing, is not JSON, or is not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        msg = f"{path}: cannot be read: {exc.strerror}"
        raise error(msg) from exc
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        msg = f"{path}: is not valid JSON: {exc}"
        raise error(msg) from exc
    if not isinstance(value, dict):
        msg = f"{path}: must be a JSON object, found {type(value).__name__}"
        raise error(msg)
    return value


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place when the block ends without an error.

    A reader of ``path`` sees the old file or the whole new one, never a part. After an error it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; what we publish is as readable as any other file of the directory.
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
