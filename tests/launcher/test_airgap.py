"""``airgap``: a folder filled where there is a network serves where there is none, and any damage to it is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import Settings
from launcher.commands import storage
from launcher.errors import ExitCode
from tests.fakes import console
from tests.fakes.file_server import file_server
from tests.fakes.manifests import file_entry, write_manifest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo" / "checkpoints" / "demo-moe"
FILES = ("model.gguf", "mmproj.gguf", "tokenizer.json")
PROFILE = "llama_cpp-26b-a4b-q4_k_m-tp1-pp1-latency"
IMAGE = "registry.example.com/ai/gemma4-nim:0.1.0"
# Runs in a namespace whose only interface is its own loopback: checks the folder, serves from it, asks one question.
OTHER_SIDE = """
import fcntl, json, os, pathlib, socket, struct, subprocess, sys, time, urllib.request
folder, program, log = sys.argv[1:]
with socket.socket() as control:
    fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
checked = subprocess.run([program, "airgap", "check", folder], capture_output=True, text=True)
print(checked.stdout, checked.stderr)
if checked.returncode:
    sys.exit(checked.returncode)
given = dict(line.split("=", 1) for line in checked.stdout.splitlines() if line.startswith("NIM_"))
with open(log, "wb") as output:
    server = subprocess.Popen([program, "serve"], env={**os.environ, **given}, stdout=output, stderr=output)
address = "http://127.0.0.1:8000/v1"
deadline = time.monotonic() + 400
while True:
    try:
        urllib.request.urlopen(address + "/health/ready", timeout=5)
        break
    except OSError:
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            sys.exit("it does not serve:\\n" + pathlib.Path(log).read_text())
        time.sleep(0.1)
model = json.load(urllib.request.urlopen(address + "/models"))["data"][0]["id"]
body = {"model": model, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
headers = {"Content-Type": "application/json"}
request = urllib.request.Request(address + "/chat/completions", json.dumps(body).encode(), headers)
print(json.load(urllib.request.urlopen(request, timeout=120))["choices"][0]["message"]["content"])
server.terminate()
sys.exit(server.wait(60))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the profile of a manifest whose files are the demo model's, with chart, image list and archive."""
    folder = tmp_path_factory.mktemp("gap")
    target, manifest = folder / "disk", folder / "manifest.yaml"
    (target / "images").mkdir(parents=True)
    (target / "images" / "gemma4-nim.tar").write_bytes(b"an archive")
    with file_server(DEMO) as server:
        write_manifest(manifest, ({}, {name: file_entry(server.url, DEMO / name) for name in FILES}))
        done = console.run(
            "gemma4-nim", "airgap", "export", str(target), "--profile", PROFILE, "--image", IMAGE,
            "--chart", str(ROOT / "helm" / "gemma4-nim"), variables={"NIM_MANIFEST_PATH": str(manifest)},
        )  # fmt: skip
    assert done.returncode == ExitCode.OK, done.stderr
    return target


def _check(folder: Path) -> subprocess.CompletedProcess[str]:
    return console.run("gemma4-nim", "airgap", "check", str(folder))


def test_everything_is_in_the_folder(exported: Path) -> None:
    """Images, chart, values, manifest and model are there; sha256sum agrees with what was written."""
    assert (exported / "images.txt").read_text() == f"{IMAGE}\n"
    assert (exported / "chart" / "gemma4-nim" / "Chart.yaml").is_file()
    assert "readOnly: true" in (exported / "values.yaml").read_text()
    assert PROFILE in (exported / "airgap.json").read_text()
    sums = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=exported, check=False)
    assert sums.returncode == 0
    assert "images/gemma4-nim.tar" in (exported / "SHA256SUMS").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_serves_where_there_is_no_network(exported: Path, tmp_path: Path) -> None:
    """A copy of the folder is checked and served from inside a network namespace that has nothing but loopback."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system permits no network namespaces")
    copy = tmp_path / "elsewhere"
    shutil.copytree(exported, copy, symlinks=True)

    program, log = console.script("gemma4-nim"), str(tmp_path / "log")

    done = subprocess.run(
        [unshare, "-rn", sys.executable, "-c", OTHER_SIDE, str(copy), program, log],
        # The small files stand for those of a large model, which might not fit.
        env=console.environment({"NIM_RELAX_MEM_CONSTRAINTS": "1"}),
        capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Paris" in done.stdout


def test_damage_on_the_way_is_named(exported: Path, tmp_path: Path) -> None:
    """A file that was changed, lost or added, and a link that did not survive, end the check with status 65."""
    copy = tmp_path / "copy"
    shutil.copytree(exported, copy, symlinks=True)
    link = min(json.loads((copy / "airgap.json").read_text())["links"])
    (copy / "images" / "gemma4-nim.tar").write_bytes(b"something else")
    (copy / "values.yaml").unlink()
    (copy / "chart" / "new").write_bytes(b"")
    (copy / link).unlink()

    done = _check(copy)

    console.fails_well(done, ExitCode.CANNOT_START, "damaged: images/gemma4-nim.tar", "not exported: chart/new")
    assert "values.yaml" in done.stderr.partition("missing: ")[2]
    assert link in done.stderr.partition("missing: ")[2]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    """A folder that was never exported, or holds no record that can be read, is told apart from a damaged one."""
    console.fails_well(_check(tmp_path), ExitCode.NOT_FOUND, "was not made by gemma4-nim airgap export")
    (tmp_path / "airgap.json").write_text("{}")
    console.fails_well(_check(tmp_path), ExitCode.CANNOT_START, "is damaged")


def test_a_demo_model_needs_no_files(tmp_path: Path) -> None:
    """The image has it, so the folder holds no model, and the settings to start with name it."""
    export = console.run("gemma4-nim", "airgap", "export", str(tmp_path), "--profile", "demo-dense")
    checked = _check(tmp_path)

    assert export.returncode == checked.returncode == ExitCode.OK, export.stderr + checked.stderr
    assert "NIM_MODEL_PROFILE=demo-dense" in checked.stdout
    assert not any((tmp_path / "models").iterdir())


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """A check takes no options, a chart must be one, and a profile and an address exclude each other."""
    uri = "hf://google/gemma-4-31B-it"
    for words, reason in (
        (("check", str(tmp_path), "--image", IMAGE), "takes a folder and nothing else"),
        (("export", str(tmp_path), "--profile", "demo-moe", "--model-uri", uri), "exclude each other"),
    ):
        console.fails_well(console.run("gemma4-nim", "airgap", *words), ExitCode.BAD_SETTINGS, reason)
    no_chart = console.run(
        "gemma4-nim", "airgap", "export", str(tmp_path), "--profile", "demo-moe", "--chart", str(tmp_path)
    )
    console.fails_well(no_chart, ExitCode.NOT_FOUND, "is no chart")


def test_a_filled_volume_is_used_though_it_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container's cache counts when it can be written or holds something; an empty one that cannot does not."""
    writable, filled, empty = (tmp_path / name for name in ("writable", "filled", "empty"))
    for folder in (writable, filled, empty):
        folder.mkdir()
    (filled / "huggingface").mkdir()
    # Root may write everywhere, whatever the mode says.
    monkeypatch.setattr(storage.os, "access", lambda path, _: path == writable)
    chosen = {}
    for folder in (writable, filled, empty, tmp_path / "absent"):
        monkeypatch.setattr(storage, "CONTAINER_CACHE", folder)
        chosen[folder.name] = storage.cache_root(Settings()) == folder

    assert chosen == {"writable": True, "filled": True, "empty": False, "absent": False}
