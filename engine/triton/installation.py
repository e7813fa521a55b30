"""Where Triton's server and its Python backend are, and how they are started from there.

Two forms are known: NVIDIA's container images, and the server inside the ``nvidia-pytriton`` wheel, which runs without
a GPU and needs neither PyTriton's own code nor root. ``python -m engine.triton.installation`` says what is there for
the interpreter that runs it, in one line: the launcher asks so before it starts anything.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config.environment import child_environment
from engine.errors import EngineLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGE_ROOT = Path("/opt/tritonserver")
STUB = "triton_python_backend_stub"
WHEEL = "nvidia-pytriton"
LAST_WITH_NUMPY_1 = (0, 7, 0)
"""The server in wheels up to this version reads arrays of NumPy 1 only: Triton 2.51, built before NumPy 2."""
STUB_TIMEOUT_S = 30.0
NOT_LOADED = 127
"""The dynamic linker's exit status for a program that lacks a library."""


@dataclass(frozen=True, slots=True)
class Installation:
    """One server with its Python backend."""

    server: Path
    backend: Path
    """The folder of the Python backend."""
    stub: Path
    """The program that runs models; it holds the interpreter of one version of Python."""
    libraries: tuple[Path, ...]
    """Folders with shared libraries that are on no other path."""

    def link_backends(self, folder: Path) -> None:
        """Make ``folder`` a backend folder with the Python backend in it.

        Raises:
            OSError: it cannot be written.
        """
        target = folder / "python"
        target.mkdir(parents=True, exist_ok=True)
        for source in (
            self.backend / "libtriton_python.so",
            self.backend / "triton_python_backend_utils.py",
            self.stub,
        ):
            link = target / source.name
            link.unlink(missing_ok=True)
            link.symlink_to(source)

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return ``given`` with what the server and its model need to start.

        The model runs in the interpreter's environment that comes first on the path: this one's.
        """
        libraries = [str(path) for path in self.libraries]
        return {
            **given,
            "PATH": ":".join([str(Path(sys.executable).parent), *_listed(given, "PATH")]),
            "LD_LIBRARY_PATH": ":".join([*libraries, *_listed(given, "LD_LIBRARY_PATH")]),
        }


def _listed(given: Mapping[str, str], name: str) -> list[str]:
    return [entry for entry in given.get(name, "").split(":") if entry]


def find_installation() -> Installation:
    """Return the server that this interpreter can run a model in.

    Raises:
        EngineLoadError: there is none, none for this version of Python, or one that cannot work here.
    """
    for find in (_in_image, _in_wheel):
        found = find()
        if found is not None:
            break
    else:
        message = (
            f"Triton's server is neither in {IMAGE_ROOT} nor in the environment of {sys.executable}; "
            "use an image that holds it, or install nvidia-pytriton there"
        )
        raise EngineLoadError(message)
    for path in (found.server, found.stub, found.backend / "libtriton_python.so"):
        if not path.is_file():
            message = f"Triton's server is incomplete for Python {sysconfig.get_python_version()}: {path} is missing"
            raise EngineLoadError(message)
    _check_stub(found)
    return found


def _check_stub(found: Installation) -> None:
    """See that the program that runs models starts: without arguments it ends at once.

    Raises:
        EngineLoadError: it lacks a library, which is mostly Python's own.
    """
    done = subprocess.run(  # noqa: S603 - the installation's own program
        [str(found.stub)], env=found.environment(child_environment({})),
        capture_output=True, text=True, timeout=STUB_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode == NOT_LOADED:
        why = done.stderr.strip().rpartition("libraries: ")[2]
        message = f"Triton's program for models cannot be started: {why}; install Python's shared library"
        raise EngineLoadError(message)


def _in_image() -> Installation | None:
    backend = IMAGE_ROOT / "backends" / "python"
    if not backend.is_dir():
        return None
    return Installation(IMAGE_ROOT / "bin" / "tritonserver", backend, backend / STUB, (IMAGE_ROOT / "lib",))


def _in_wheel() -> Installation | None:
    # Asked for without importing it: the package's own code is not used, and its dependencies need not be there.
    package = importlib.util.find_spec("pytriton")
    if package is None or package.origin is None:
        return None
    _check_numpy()
    root = Path(package.origin).parent / "tritonserver"
    stub = root / "python_backend_stubs" / sysconfig.get_python_version() / STUB
    libraries = (root.parents[1] / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR")))
    return Installation(root / "bin" / "tritonserver", root / "backends" / "python", stub, libraries)


def _check_numpy() -> None:
    """Refuse a pair of versions with which every request would fail.

    Raises:
        EngineLoadError: NumPy is too new for the wheel's server.
    """
    wheel, numpy = (importlib.metadata.version(name) for name in (WHEEL, "numpy"))
    if _numbers(numpy)[0] > 1 and _numbers(wheel) <= LAST_WITH_NUMPY_1:
        message = (
            f"the Triton of {WHEEL} {wheel} reads arrays of NumPy 1 only, and NumPy {numpy} is in the environment of "
            f"{sys.executable}; install numpy<2 there, or use another environment"
        )
        raise EngineLoadError(message)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def main() -> int:
    """Write the server's path and return 0, or write why there is none and return 1."""
    try:
        found = find_installation()
    except EngineLoadError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{found.server}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
