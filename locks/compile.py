"""Writes the lock files from ``pyproject.toml``; ``make lock`` runs it in an environment that has uv.

``runtime.txt``, ``dev.txt`` and ``triton.txt`` name every file by its hash and no registry, so any mirror will do.
``triton.txt`` holds only what Triton's environment has besides everything for serving. ``train.txt`` names versions
only: which build of torch is right depends on the machine. Each file starts with a fingerprint of what it was made
from, and a test compares that with ``pyproject.toml``.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
MARK = "# made from: "
MACHINE_SPECIFIC = ("cuda-", "nvidia-", "triton==")
"""Packages that only some builds of torch want; pip adds them where torch asks for them."""
OUR_OWN = ("nvidia-ml-py==",)
"""Of these names, what the project itself needs."""


def fingerprint(project: dict[str, Any]) -> str:
    """Return a digest of everything in ``pyproject.toml`` that a lock file depends on."""
    wanted = {
        "python": project["project"]["requires-python"],
        "dependencies": project["project"]["dependencies"],
        "groups": project["dependency-groups"],
    }
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]


def compile_lock(name: str, arguments: list[str], made_from: str) -> None:
    """Resolve one set of requirements into ``locks/NAME``, moving versions only where they must move."""
    target = LOCKS / name
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
        "--no-emit-index-url", "--no-emit-find-links", "--no-header", "--output-file", str(target), *arguments,
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT)
    text = target.read_text(encoding="utf-8")
    if name == "train.txt":
        lines = [line for line in text.splitlines() if not line.strip().startswith("#")]
        kept = (line for line in lines if line.startswith(OUR_OWN) or not line.startswith(MACHINE_SPECIFIC))
        text = "\n".join(kept) + "\n"
    target.write_text(f"# Made by make lock; do not edit.\n{MARK}{made_from}\n{text}", encoding="utf-8")


def main() -> None:
    """Write all lock files."""
    made_from = fingerprint(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    hashed = ["--generate-hashes", *upgrade]
    compile_lock("runtime.txt", ["pyproject.toml", "--group", "build", *hashed], made_from)
    compile_lock("dev.txt", ["--group", "dev", "--constraint", "locks/runtime.txt", *hashed], made_from)
    # Only the server inside the wheel is used; what the wheel itself asks for is not.
    compile_lock("triton.txt", ["--group", "triton", "--no-deps", *hashed], made_from)
    same = ["--constraint", "locks/runtime.txt", *upgrade]
    compile_lock("train.txt", ["pyproject.toml", "--group", "train", "--no-annotate", *same], made_from)


if __name__ == "__main__":
    main()
