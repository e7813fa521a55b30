"""Where Triton's server and its Python backend are, and how they are started from there.

Two forms are known: NVIDIA's container images, and the server inside the ``nvidia-pytriton`` wheel, which runs without
a GPU and needs neither PyTriton's own code nor root.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import EngineLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGE_ROOT = Path("/opt/tritonserver")
STUB = "triton_python_backend_stub"


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
        EngineLoadError: there is none, or none for this version of Python.
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
    return found


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
    root = Path(package.origin).parent / "tritonserver"
    stub = root / "python_backend_stubs" / sysconfig.get_python_version() / STUB
    libraries = (root.parents[1] / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR")))
    return Installation(root / "bin" / "tritonserver", root / "backends" / "python", stub, libraries)
