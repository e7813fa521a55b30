"""Moves NVIDIA's Triton Inference Server from its image into another one, with the libraries that the other lacks.

``collect`` runs in Triton's image: it checks the version, drops every backend but Python's, and copies what the server
is linked with beside it. ``adopt`` runs in the image that gets it: it keeps those libraries that are not there, tells
the dynamic linker, and fails when anything is still missing, rather than letting the server fail at its start.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

SERVER: Final = Path("/opt/tritonserver")
LIBRARIES: Final = SERVER / "linked"
LINKER_FILE: Final = Path("/etc/ld.so.conf.d/zz-tritonserver.conf")
"""Last in order: a library of the image wins over Triton's."""
OLDEST: Final = (26, 8)
"""Earlier releases have CVE-2025-23319, CVE-2025-23320 and CVE-2025-23334, or were not checked for them."""
KEPT: Final = ("bin", "lib", "backends", "LICENSE", "TRITON_VERSION", "NVIDIA_Deep_Learning_Container_License.pdf")
SYSTEM: Final = re.compile(r"(ld-linux.*|lib(c|m|dl|pthread|rt|resolv|util|gcc_s|stdc\+\+|cuda|nvidia-ml))\.so")
"""The C and C++ runtime belong to the image, the driver's libraries to the machine."""


def main() -> int:
    """Run one of the two steps; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("collect", "adopt"))
    missing = collect() if parser.parse_args().step == "collect" else adopt()
    sys.stderr.write("".join(f"triton: {line}\n" for line in missing))
    return 1 if missing else 0


def collect() -> list[str]:
    """Reduce the server to what is needed and copy its libraries; return what is wrong."""
    release = os.environ.get("NVIDIA_TRITON_SERVER_VERSION", "")
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if numbers and numbers < OLDEST:
        return [f"release {release} is older than {OLDEST[0]}.{OLDEST[1]:02}"]
    for path in SERVER.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in (SERVER / "backends").glob("*"):
        if path.name != "python":
            shutil.rmtree(path)
    LIBRARIES.mkdir()
    for path in programs():
        for name, place in linked(path).items():
            if place and not SYSTEM.match(name) and not Path(place).is_relative_to(SERVER):
                shutil.copy2(place, LIBRARIES / name)
    return []


def adopt() -> list[str]:
    """Keep the libraries that this image lacks; return what the server still misses."""
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    here = set(re.findall(r"^\t(\S+) ", known, re.MULTILINE))
    for path in LIBRARIES.iterdir():
        if path.name in here:
            path.unlink()
    LINKER_FILE.write_text(f"{LIBRARIES}\n{SERVER / 'lib'}\n", encoding="utf-8")
    subprocess.run(["ldconfig"], check=True)
    return [
        f"{path} is linked with {name}, which this image lacks"
        for path in programs()
        for name, place in linked(path).items()
        if not place and not SYSTEM.match(name)
    ]


def programs() -> list[Path]:
    """Return what is linked: the server, its libraries, and the Python backend."""
    folders = (SERVER / "bin", SERVER / "lib", SERVER / "backends" / "python")
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file() and _is_elf(path)]


def linked(path: Path) -> dict[str, str]:
    """Return the libraries of a file: name -> path, empty when it is not found."""
    listed = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^\t(\S+) => (not found|\S+)", listed, re.MULTILINE)
    return {name: "" if place == "not found" else place for name, place in found}


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


if __name__ == "__main__":
    sys.exit(main())
