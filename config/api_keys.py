"""Keys that open the server: how they are written in settings and files, and what is kept of them, a digest and a name.

The key itself is needed only to compute its digest: the launcher does that, and the API process gets digests. Keys are
long random words, so one round of SHA-256 is enough: nobody can try them all.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from config.errors import ConfigError

MAX_KEYS: Final = 1000
MAX_FILE_CHARACTERS: Final = 4 * 1024 * 1024
SHORT_KEY: Final = 16
"""Fewer characters can be guessed; such keys are accepted with a warning."""
_KEY: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,512}\Z")
_LINE: Final = re.compile(r"([0-9A-Fa-f]{64})(?:[ \t]+\*?(\S+))?\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,64}\Z")


class ApiKey(BaseModel):
    """What is known of one key.

    Attributes:
        name: what the log calls it.
        sha256: digest of the key, in hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9_.:@-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def digest(key: bytes) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(key).hexdigest()


def split_keys(text: str) -> tuple[str, ...]:
    """Return the keys of a list with commas or line ends.

    Raises:
        ValueError: there is none, or one is no word of plain characters.
    """
    keys = tuple(key for part in re.split(r"[,\r\n]", text) if (key := part.strip()))
    if not keys:
        raise ValueError("there is no key in it")
    if not all(_KEY.match(key) for key in keys):
        raise ValueError("a key is one word of plain letters, digits and signs, at most 512")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"these are more than {MAX_KEYS} keys")
    return keys


def named(keys: Iterable[str], first: int = 1) -> tuple[ApiKey, ...]:
    """Return what is kept of keys that have no names: they are numbered."""
    return tuple(ApiKey(name=f"key{number}", sha256=digest(key.encode())) for number, key in enumerate(keys, first))


def keys_of(several: SecretStr | None, one: SecretStr | None) -> tuple[ApiKey, ...]:
    """Return what is kept of the keys in ``NIM_API_KEYS`` and ``NIM_API_KEY``."""
    keys = () if several is None else named(split_keys(several.get_secret_value()))
    return keys if one is None else (*named(split_keys(one.get_secret_value()), 0), *keys)


def is_name(text: str) -> bool:
    """Tell whether a key may be called so."""
    return _NAME.match(text) is not None


def parse_hashes(text: str) -> tuple[ApiKey, ...]:
    """Return the keys of a file: on each line a SHA-256 and a name; empty lines and what follows ``#`` do not count.

    Raises:
        ValueError: a line is something else; it tells which one, and not what is in it.
    """
    keys: list[ApiKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#", 1)[0].strip()
        if not content:
            continue
        found = _LINE.match(content)
        # "sha256sum" calls its standard input "-".
        name = (found[2] or "-") if found else ""
        name = f"line{number}" if name == "-" else name
        if found is None or not is_name(name):
            raise ValueError(f"line {number} is not a SHA-256 in hexadecimal and a name of letters, digits and _.:@-")
        keys.append(ApiKey(name=name, sha256=found[1].lower()))
    if len(keys) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    return tuple(keys)


class KeyTable:
    """Finds the name of a key that somebody presents, in a time that does not depend on how much of it is right."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._entries = tuple((key.name, bytes.fromhex(key.sha256)) for key in keys)

    def name_of(self, presented: bytes) -> str | None:
        """Return the key's name, None for one that opens nothing."""
        found: str | None = None
        presented_digest = hashlib.sha256(presented).digest()
        for name, known in self._entries:
            # Every entry is compared, so that the time tells nothing of which one it was.
            if hmac.compare_digest(known, presented_digest):
                found = name
        return found


def stamp_of(path: Path) -> object:
    """Return what changes when the file does, also when a link in its path leads elsewhere; None when it is gone."""
    try:
        entry = path.stat()
    except OSError:
        return None
    return entry.st_mtime_ns, entry.st_ino, entry.st_size


def read_hashes(path: Path, *, may_be_empty: bool = False) -> tuple[ApiKey, ...]:
    """Return the keys of the file that ``NIM_API_KEY_HASHES_PATH`` names.

    Raises:
        ConfigError: it cannot be read, has a line that is none of a key, or no key at all.
    """
    place = f"NIM_API_KEY_HASHES_PATH={path}"
    try:
        with path.open(encoding="utf-8") as file:
            keys = parse_hashes(file.read(MAX_FILE_CHARACTERS))
    except OSError as error:
        raise ConfigError([f"{place}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{place}: is not text"]) from error
    except ValueError as error:
        raise ConfigError([f"{place}: {error}"]) from error
    if not keys and not may_be_empty:
        raise ConfigError([f"{place}: has no key; gemma4-nim hash-key NAME makes a line of one"])
    return keys
