"""Becomes process 1 of a container: run by ``unshare`` with namespaces of its own, on a root that it may only read.

What a container engine would set up is set up here in plain sight: the read-only root, ``/proc``, ``/dev``, ``/tmp``,
``/dev/shm``, the cache, the loopback interface, and a user without any privilege.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

DEVICES: Final = ("null", "zero", "full", "random", "urandom")
PR_SET_NO_NEW_PRIVS: Final = 38


def main() -> None:
    """Set everything up as the JSON object in the first argument says, and become the program that it names."""
    wanted = json.loads(sys.argv[1])
    root = Path(wanted["root"])
    set_up(root, wanted)
    os.chroot(root)
    os.chdir(wanted["folder"])
    os.setgroups([])
    os.setgid(wanted["gid"])
    # This also drops all capabilities; the next line keeps programs with the set-user bit from bringing any back.
    os.setuid(wanted["uid"])
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.execve(wanted["command"][0], wanted["command"], wanted["environment"])  # noqa: S606


def set_up(root: Path, wanted: dict[str, Any]) -> None:
    """Mount what the container sees. All of it goes away with the namespace."""
    mount("--make-rprivate", "/")
    mount("--bind", str(root), str(root))
    for path in wanted["hidden"]:
        # A shell that cannot be run is a shell that is not there.
        mount("--bind", "/dev/null", str(root / path.lstrip("/")))
    mount("-t", "proc", "proc", str(root / "proc"))
    mount("--rbind", "/sys", str(root / "sys"))
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(root / "dev"))
    for name in DEVICES:
        (root / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", str(root / "dev" / name))
    (root / "dev" / "shm").mkdir()
    mount("-t", "tmpfs", "-o", "mode=1777,size=64m", "tmpfs", str(root / "dev" / "shm"))
    mount("-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "tmpfs", str(root / "tmp"))
    for inside, outside in wanted["volumes"].items():
        mount("--bind", outside, str(root / inside.lstrip("/")))
    mount("-o", "remount,bind,ro", str(root))
    mount("-o", "remount,ro,mode=755", str(root / "dev"))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def mount(*words: str) -> None:
    """Run ``mount``."""
    subprocess.run(["mount", *words], check=True)


if __name__ == "__main__":
    main()
