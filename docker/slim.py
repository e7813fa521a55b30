"""Takes out of a virtual environment what a running server never needs; used while the image is built.

Only packages that the product's own requirements reach stay: no pip, no build tools. Then tests, headers and type stubs
go, and the symbol tables of libraries, which make up most of the size of some wheels. A library that no longer loads
after that is put back as it was. Last, everything is compiled, since the image's file system is read-only at run time.
"""

from __future__ import annotations

import argparse
import compileall
import py_compile
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NOT_NEEDED: Final = {("tokenizers", "huggingface-hub")}
"""Requirements (who, what) of functions that are never called; here ``Tokenizer.from_pretrained``. Leaving it out keeps
a second HTTP client, with its native code, out of the image."""
TEST_FOLDERS: Final = ("test", "tests")
STUBS: Final = (".pyi", ".pyx", ".pxd", ".h", ".hpp", ".c", ".cpp", ".a")
LOADS: Final = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


def main() -> int:
    """Slim the environment named on the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path, help="the virtual environment")
    parser.add_argument("--product", required=True, help="the package whose requirements stay")
    options = parser.parse_args()
    (packages,) = options.environment.glob("lib/python3*/site-packages")
    before = _size(packages)
    removed = remove_unreached(packages, options.product)
    remove_files(packages)
    remove_programs(options.environment / "bin", options.product)
    kept = strip_libraries(packages, options.environment / "bin" / "python")
    compiled = compileall.compile_dir(
        packages, quiet=1, force=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    megabytes = f"{before / 1e6:.0f} -> {_size(packages) / 1e6:.0f} MB"
    sys.stdout.write(f"{megabytes}; removed: {', '.join(removed)}; not stripped: {', '.join(kept) or 'none'}\n")
    return 0 if compiled else 1


def remove_unreached(packages: Path, product: str) -> list[str]:
    """Delete every distribution that the product does not require, and return their names."""
    found = distributions(path=[str(packages)])
    installed: dict[str, Distribution] = {canonicalize_name(one.metadata["Name"]): one for one in found}
    wanted = _reached(installed, canonicalize_name(product))
    removed = sorted(set(installed) - wanted)
    for name in removed:
        for file in installed[name].files or ():
            path = Path(str(file.locate()))
            path.unlink(missing_ok=True)
            _remove_empty(path.parent, packages)
    return removed


def _reached(installed: dict[str, Distribution], product: str) -> set[str]:
    reached: set[tuple[str, str]] = set()
    open_ends = {(product, "")}
    while open_ends:
        name, extra = open_ends.pop()
        reached.add((name, extra))
        for requirement in map(Requirement, installed[name].requires or ()):
            other = canonicalize_name(requirement.name)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if applies and other in installed and (name, other) not in NOT_NEEDED:
                open_ends |= {(other, wanted) for wanted in ("", *requirement.extras)} - reached
    return {name for name, _ in reached}


def remove_files(packages: Path) -> None:
    """Delete tests, stubs, headers, and what was compiled before."""
    for folder in sorted(packages.rglob("*"), reverse=True):
        if folder.is_dir() and not folder.is_symlink() and folder.name in (*TEST_FOLDERS, "__pycache__"):
            shutil.rmtree(folder)
    for path in packages.rglob("*"):
        if path.suffix in STUBS and path.is_file():
            path.unlink()


def remove_programs(folder: Path, product: str) -> None:
    """Delete the programs that other packages bring: what an image cannot run, nobody can misuse."""
    own = {one.name for one in distribution(product).entry_points if one.group == "console_scripts"}
    for path in folder.iterdir():
        if path.name not in own and not path.name.startswith("python"):
            path.unlink()


def strip_libraries(packages: Path, python: Path) -> list[str]:
    """Remove symbol tables from extension modules, and return the names of those that did not bear it.

    Libraries in ``*.libs`` are left alone: whoever put them there has rewritten their headers, and strip damages those.
    """
    kept = []
    for path in sorted(packages.rglob("*.so")):
        if path.is_symlink() or path.parent.suffix == ".libs":
            continue
        original = path.with_suffix(".original")
        shutil.copy2(path, original)
        subprocess.run(["strip", "--strip-unneeded", str(path)], check=True)
        if not _loads(python, path) and _loads(python, original):
            original.replace(path)
            kept.append(path.name)
        original.unlink(missing_ok=True)
    return kept


def _loads(python: Path, library: Path) -> bool:
    return subprocess.run([python, "-c", LOADS, library], capture_output=True, check=False).returncode == 0


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top and folder.is_relative_to(top) and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
