"""``hash-key``: one line of the file that ``NIM_API_KEY_HASHES_PATH`` names, made of a key."""

from __future__ import annotations

import getpass
import secrets
import sys
from typing import Annotated, Final

import typer

from config.api_keys import ApiKey, digest, is_name, split_keys
from launcher.errors import ExitCode, LaunchError

KEY_BYTES: Final = 32
MAX_CHARACTERS: Final = 4096


def hash_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the log calls the key, such as its holder.")],
    *,
    new: Annotated[
        bool, typer.Option("--new", help="Make a key, and show it once on standard error, instead of reading one.")
    ] = False,
) -> None:
    """Read a key from standard input and write its line for the file of keys.

    The line holds the key's SHA-256 and the name, so that the file tells nobody a key: gemma4-nim hash-key alice
    < alice.key >> keys.txt. The server reads the file again when it changes.
    """
    if not is_name(name):
        message = f"{name!r} cannot be the name of a key"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "use letters, digits and _.:@-, at most 64")
    key = secrets.token_urlsafe(KEY_BYTES) if new else _read_key()
    if new:
        sys.stderr.write(f"{key}\n")
    line = ApiKey(name=name, sha256=digest(key.encode()))
    sys.stdout.write(f"{line.sha256} {line.name}\n")


def _read_key() -> str:
    text = getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.read(MAX_CHARACTERS)
    try:
        (key,) = split_keys(text)
    except ValueError as error:
        message = "standard input must hold one key, a word of plain characters"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "openssl rand -hex 32 makes one") from error
    return key
