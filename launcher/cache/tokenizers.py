"""Provides ``tokenizer.json`` for models that come without one, rebuilt once from the GGUF file's own vocabulary."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

from config.environment import cache_folder
from launcher.cache.store import storage_error
from launcher.errors import ExitCode, LaunchError

CONTAINER_CACHE: Final = Path("/opt/nim/.cache")


def rebuilt_tokenizer(weights: Path, cache: Path | None) -> Path:
    """Return the path of a ``tokenizer.json`` for ``weights``, making it on first use.

    Where the cache cannot be written it is made in a temporary folder, at each start anew.

    Raises:
        CacheError: NIM_CACHE_PATH cannot be a folder.
        DiskError: there is no room for it.
        LaunchError: the GGUF file holds no usable vocabulary.
    """
    # Imported here: it needs libraries that a start with a ready tokenizer.json does without.
    from engine_build.errors import EngineBuildError  # noqa: PLC0415
    from engine_build.gguf_tokenizer import write_tokenizer_json  # noqa: PLC0415

    folder, name = _folder(cache), f"{_fingerprint(weights)}.json"
    if (folder / name).is_file():
        return folder / name
    target = (folder if os.access(folder, os.W_OK) else Path(tempfile.mkdtemp(prefix="gemma4-nim-"))) / name
    # Written beside and renamed: a start that is interrupted must not leave half a file behind.
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        write_tokenizer_json(weights, partial)
        partial.replace(target)
    except EngineBuildError as error:
        raise LaunchError(ExitCode.CANNOT_START, f"{weights} holds no usable vocabulary: {error}") from error
    except OSError as error:
        raise storage_error(error, target) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _folder(cache: Path | None) -> Path:
    if cache is not None:
        folder = cache.expanduser() / "tokenizers"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from error
        return folder
    for base in (CONTAINER_CACHE, cache_folder()):
        if base is CONTAINER_CACHE and not os.access(base, os.W_OK):
            continue
        try:
            (base / "tokenizers").mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        return base / "tokenizers"
    return Path(tempfile.mkdtemp(prefix="gemma4-nim-"))


def _fingerprint(weights: Path) -> str:
    status = weights.stat()
    identity = f"{weights.resolve()}\n{status.st_size}\n{status.st_mtime_ns}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]
