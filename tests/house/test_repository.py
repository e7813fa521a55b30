"""Rules of this repository that no linter knows: what its documents promise, its size, its words, its lock files."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

import launcher.errors
from config.settings import sections
from launcher.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "config", "demo", "engine", "engine_build", "launcher")
MAX_TARGETS = 15
MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 40
TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ""}
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def _project_files() -> list[Path]:
    """Return the files that belong to the repository: tracked ones, and new ones that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def _targets() -> dict[str, str]:
    """Return the Makefile's documented targets and their sentences."""
    return dict(re.findall(r"^([a-z-]+):.*?## (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _lock_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compile_locks", ROOT / "locks" / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pinned(name: str) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for package, version in re.findall(
        r"^([a-z0-9._-]+)==([^\s;\\]+)", (ROOT / "locks" / name).read_text(), re.MULTILINE
    ):
        pins.setdefault(package, set()).add(version)
    return pins


def test_makefile_is_short_and_documented() -> None:
    """At most fifteen targets, each declared phony and explained in one line."""
    text = (ROOT / "Makefile").read_text()
    phony = next(line for line in text.splitlines() if line.startswith(".PHONY:")).split()[1:]

    assert set(phony) == set(_targets())
    assert len(phony) <= MAX_TARGETS
    assert {"serve", "test", "check", "demo-train", "demo-eval", "help"} <= set(phony)


def test_documents_name_only_targets_that_exist() -> None:
    """Every ``make X`` that a document shows can be typed."""
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"(?:`|^|\s)make ([a-z][a-z-]+)(?:`|\s+#|$)", document.read_text(), re.MULTILINE):
            assert target in _targets(), f"{document.name}: make {target}"


def test_links_in_documents_lead_somewhere() -> None:
    """Every relative link of a document leads to a file of the repository."""
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_every_exit_code_is_documented() -> None:
    """docs/operations.md has one row for each exit code, and none besides."""
    rows = re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)

    assert {(int(number), name) for number, name in rows} == {(int(code), code.name) for code in ExitCode}
    assert launcher.errors.__doc__


def test_every_setting_is_read_somewhere() -> None:
    """A setting that nothing reads would be ignored in silence."""
    code = "\n".join(path.read_text() for path in MODULES if path.parent.name != "config")
    read = set(re.findall(r"\b(\w+)(?=\.(\w+))", code))
    unread = [
        f"{section}.{name}"
        for section, model in sections().items()
        for name in model.model_fields
        if read.isdisjoint({(owner, name) for owner in (section, "settings", "launch_settings")})
    ]
    # Read inside config/ itself: before anything else runs, or where launcher and API share the reader.
    certificates = {"tls.certs_path", "tls.key_path", "tls.ca_certs_path"}
    assert set(unread) == {"log.level", "log.jsonl", "launch.strict_config"} - _read_outside(code) | certificates


def _read_outside(code: str) -> set[str]:
    return {name for name in ("log.level", "log.jsonl", "launch.strict_config") if f"settings.{name}" in code}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_small_and_says_what_it_owns(path: Path) -> None:
    """At most 300 lines per module, 40 per function without its docstring, and a docstring on every module."""
    text = path.read_text()
    tree = ast.parse(text)

    assert ast.get_docstring(tree)
    assert text.count("\n") <= MAX_MODULE_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - _docstring_lines(node)
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    is_docstring = ast.get_docstring(node) is not None
    return (first.end_lineno or first.lineno) - first.lineno + 1 if is_docstring else 0


def test_no_address_of_one_machine_or_registry() -> None:
    """No file names a folder of one machine or the host of a package registry."""
    banned = re.compile(r"(?<![\w.])/(?:work|root|farm)/|pypi\.org|pythonhosted|registry\.npmjs|/opt/pypi|/tmp/w/")
    for path in _project_files():
        if path.suffix in TEXT and path != Path(__file__).resolve():
            found = banned.search(path.read_text(errors="replace"))
            assert found is None, f"{path.relative_to(ROOT)}: {found and found.group()}"


def _requirements(project: dict[str, object]) -> Iterator[tuple[str, str]]:
    info, groups = project["project"], project["dependency-groups"]
    assert isinstance(info, dict)
    assert isinstance(groups, dict)
    for lines, lock in (
        (info["dependencies"], "runtime.txt"),
        (groups["build"], "runtime.txt"),
        (groups["dev"], "dev.txt"),
        (groups["triton"], "triton.txt"),
    ):
        yield from ((line, lock) for line in lines)
    yield from ((line, "train.txt") for line in [*info["dependencies"], *groups["train"]])


def test_lock_files_are_in_step_with_the_project() -> None:
    """After a change of dependencies ``make lock`` has to be run; until then this fails."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    script = _lock_script()

    for name in ("runtime.txt", "dev.txt", "triton.txt", "train.txt"):
        assert f"{script.MARK}{script.fingerprint(project)}\n" in (ROOT / "locks" / name).read_text(), name
    for line, lock in _requirements(project):
        requirement = Requirement(line)
        versions = _pinned(lock).get(requirement.name.lower().replace("_", "-"), set())
        assert versions, f"{lock} lacks {line}"
        assert all(requirement.specifier.contains(version) for version in versions), f"{lock}: {line}"


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt", "triton.txt"])
def test_every_locked_package_has_hashes(name: str) -> None:
    """Hashes let pip check every file that it installs; nothing names where it comes from."""
    text = (ROOT / "locks" / name).read_text()
    entries = re.split(r"^(?=[a-z0-9._-]+==)", text, flags=re.MULTILINE)[1:]

    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "--index-url" not in text


def test_environments_agree_on_versions() -> None:
    """A package that serving and the tests both need has one version."""
    runtime, dev = _pinned("runtime.txt"), _pinned("dev.txt")

    assert {name: dev[name] for name in runtime.keys() & dev.keys()} == {
        name: runtime[name] for name in runtime.keys() & dev.keys()
    }


def test_training_is_not_needed_to_serve() -> None:
    """Both torch and transformers stay out of what serving and testing install."""
    assert not {"torch", "transformers"} & (_pinned("runtime.txt").keys() | _pinned("dev.txt").keys())


def test_changelog_has_the_version() -> None:
    """The version of the project has its section in the changelog."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
