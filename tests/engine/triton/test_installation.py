"""Finding Triton's server, and the command line of the engine process around it, where no server is needed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from engine.errors import EngineLoadError
from engine.triton import installation
from engine.triton.__main__ import main
from engine.triton.installation import Installation, find_installation
from engine.triton.installation import main as ask


def _program(path, text):
    """Write what is run instead of the backend's program for models."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _release(folder, name, version):
    """Let a release of a package be installed, as far as its metadata goes."""
    for old in folder.glob(f"{name.replace('-', '_')}-*.dist-info"):
        (old / "METADATA").unlink()
        old.rmdir()
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """Lay out the files of a wheel that holds the server; returns the package's folder."""
    package = tmp_path / "pytriton"
    root = package / "tritonserver"
    stub = root / "python_backend_stubs" / sysconfig.get_python_version() / installation.STUB
    for path in (
        package / "__init__.py",
        root / "bin" / "tritonserver",
        root / "backends" / "python" / "libtriton_python.so",
        root / "backends" / "python" / "triton_python_backend_utils.py",
        stub,
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    _program(stub, "exit 1")
    _release(tmp_path, installation.WHEEL, "0.7.0")
    _release(tmp_path, "numpy", "1.26.4")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(installation, "IMAGE_ROOT", tmp_path / "nowhere")
    return package


def test_the_wheel_is_found_without_being_imported(wheel, tmp_path):
    """Server, backend and this Python's stub; the package's own code stays untouched."""
    found = find_installation()
    assert found.server == wheel / "tritonserver" / "bin" / "tritonserver"
    assert found.stub.parent.name == sysconfig.get_python_version()
    assert tmp_path / "nvidia_pytriton.libs" in found.libraries
    assert "pytriton" not in sys.modules


@pytest.mark.usefixtures("wheel")
def test_an_image_comes_first(tmp_path, monkeypatch):
    """In NVIDIA's images the server is at its usual place."""
    root = tmp_path / "opt"
    for path in ("bin/tritonserver", "backends/python/libtriton_python.so", f"backends/python/{installation.STUB}"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    _program(root / "backends" / "python" / installation.STUB, "exit 1")
    monkeypatch.setattr(installation, "IMAGE_ROOT", root)
    assert find_installation().server == root / "bin" / "tritonserver"


def test_a_python_without_a_stub_is_named(wheel):
    """The stub holds one version of Python; without ours the message says which file is missing."""
    next((wheel / "tritonserver" / "python_backend_stubs").rglob(installation.STUB)).unlink()
    with pytest.raises(EngineLoadError, match=f"Python {sysconfig.get_python_version()}.*is missing"):
        find_installation()


@pytest.mark.usefixtures("wheel")
def test_a_numpy_that_is_too_new_is_told(tmp_path):
    """The wheel's server reads NumPy 1 only: both versions are named. A later wheel is not held to that."""
    _release(tmp_path, "numpy", "2.2.0")
    with pytest.raises(EngineLoadError, match=r"0\.7\.0 reads arrays of NumPy 1 only, and NumPy 2\.2\.0"):
        find_installation()
    _release(tmp_path, installation.WHEEL, "0.8.0")
    find_installation()


def test_a_program_that_lacks_a_library_is_told(wheel):
    """Python's own library is not there with every Python; the linker's words are passed on."""
    stub = next((wheel / "tritonserver" / "python_backend_stubs").rglob(installation.STUB))
    _program(stub, "echo 'stub: error while loading shared libraries: libpython3.99.so: cannot open' >&2; exit 127")
    with pytest.raises(EngineLoadError, match=r"libpython3\.99\.so: cannot open; install Python's shared library"):
        find_installation()


@pytest.mark.usefixtures("wheel")
def test_the_question_for_a_server_is_answered_in_one_line(capsys):
    """Its path and status 0, or why there is none and status 1."""
    assert ask() == 0
    assert capsys.readouterr().out.endswith("/bin/tritonserver\n")
    next((Path(sys.path[0]) / "pytriton").rglob("tritonserver/bin/tritonserver")).unlink()
    assert ask() == 1
    assert capsys.readouterr().err.endswith("is missing\n")


def test_no_server_at_all_is_told(tmp_path, monkeypatch):
    """The message says where it was looked for and what to install."""
    monkeypatch.setattr(installation, "IMAGE_ROOT", tmp_path)
    monkeypatch.setattr(installation, "_in_wheel", lambda: None)
    with pytest.raises(EngineLoadError, match="nvidia-pytriton"):
        find_installation()


@pytest.mark.usefixtures("wheel")
def test_the_backend_folder_can_be_made_twice(tmp_path):
    """Links of an earlier run are replaced."""
    found = find_installation()
    for _ in range(2):
        found.link_backends(tmp_path / "backends")
    links = sorted(path.name for path in (tmp_path / "backends" / "python").iterdir())
    assert links == sorted(["libtriton_python.so", installation.STUB, "triton_python_backend_utils.py"])


def test_the_model_runs_in_this_interpreters_environment(tmp_path):
    """Its folder comes first on the path, the server's libraries first among libraries; nothing else is lost."""
    found = Installation(tmp_path, tmp_path, tmp_path, (tmp_path / "a", tmp_path / "b"))
    made = found.environment({"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/cuda", "HOME": "/home"})
    assert made["PATH"] == f"{os.path.dirname(sys.executable)}:/usr/bin"  # noqa: PTH120 - the text itself
    assert made["LD_LIBRARY_PATH"] == f"{tmp_path}/a:{tmp_path}/b:/cuda"
    assert made["HOME"] == "/home"


def test_an_unusable_runtime_is_a_usage_error(tmp_path, capsys):
    """A missing or malformed file is status 2 and one line that names it."""
    path = tmp_path / "runtime.json"
    path.write_text("{}")
    for name in (path, tmp_path / "absent.json"):
        assert main(["--runtime", str(name)]) == 2
        assert str(name) in capsys.readouterr().err


@pytest.mark.skipif(
    installation.IMAGE_ROOT.exists() or importlib.util.find_spec("pytriton") is not None,
    reason="this environment holds Triton's server",
)
def test_without_a_server_the_engine_process_says_so(make_runtime, tmp_path):
    """The process ends with status 1 and the reason, where this Python's environment holds no Triton."""
    path = tmp_path / "runtime.json"
    path.write_text(make_runtime(endpoint=f"unix:{tmp_path}/e").model_dump_json())
    command = [sys.executable, "-m", "engine.triton", "--runtime", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("engine: Triton's server is neither")


def test_the_repository_alone_can_be_written(make_runtime, tmp_path):
    """For a server that somebody else starts."""
    path = tmp_path / "runtime.json"
    path.write_text(make_runtime().model_dump_json())
    assert main(["--runtime", str(path), "--write-repository", str(tmp_path / "models")]) == 0
    assert (tmp_path / "models" / "gemma4" / "config.pbtxt").is_file()
    assert (tmp_path / "models" / "gemma4" / "1" / "model.py").is_file()
