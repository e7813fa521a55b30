"""Offline: no connection, no name looked up. In a namespace without network, and under Python's audit events."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.cache.store import Cache
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.errors import ExitCode, NotFoundError
from tests.launcher.download.conftest import Seen, access, content
from tests.launcher.download.servers import hub_and_storage

ROOT = Path(__file__).parents[3]
MODEL = "google/gemma-4-26B-A4B-it"
FILES = {"config.json": b"{}", "model.safetensors": content(100_000, 12)}
CHECKPOINT = [FileRequest("*", f"hf://{MODEL}:main", include=("*.safetensors", "*.json"))]
# Every way in which Python connects, sends to an address or looks up a name raises one of these events. (urllib3 binds
# a socket to the loopback address when it is imported, to see whether there is IPv6; nothing leaves the machine.)
CHILD = """
import sys
events = []
outward = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.get", "urllib.", "http.client.")
sys.addaudithook(lambda name, arguments: events.append(name) if name.startswith(outward) else None)
from pathlib import Path
from launcher.cache.store import Cache
from launcher.download.access import Access
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.errors import LaunchError
files = [FileRequest("*", sys.argv[2], include=("*.safetensors", "*.json"))]
try:
    folder = fetch_workspace(files, Cache(Path(sys.argv[1])), Access(offline=True), verify="verify" in sys.argv)
    print(sorted(path.name for path in folder.iterdir()))
    code = 0
except LaunchError as error:
    print(error.message)
    code = int(error.code)
outside = [name for name in events if name not in ("socket.gethostname",)]
if outside:
    print("network events:", outside)
    code = 99
sys.exit(code)
"""


@pytest.fixture
def full(cache: Cache) -> Cache:
    with hub_and_storage({MODEL: FILES}) as hub:
        fetch_workspace(CHECKPOINT, cache, access(hf_endpoint=hub.url))
    return cache


def run(before: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*before, sys.executable, "-c", CHILD, *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def without_network() -> list[str]:
    """What starts a process that has no network interface but an unconfigured loopback."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    if subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system permits no network namespaces")
    return [unshare, "-rn"]


@pytest.mark.parametrize("verify", [(), ("verify",)])
def test_a_full_cache_serves_where_there_is_no_network(full: Cache, verify: tuple[str, ...]) -> None:
    """Whatever the code might try, the kernel would refuse it; it tries nothing."""
    outcome = run(without_network(), str(full.root), f"hf://{MODEL}:main", *verify)

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "'config.json', 'model.safetensors'" in outcome.stdout


@pytest.mark.parametrize("uri", [f"hf://{MODEL}:main", "hf://google/other", f"ngc://nim/{MODEL}:1", "s3://bucket/key"])
def test_offline_opens_no_socket_whatever_is_missing(full: Cache, uri: str) -> None:
    """Python's audit events see every socket, look-up and connection of this process: there is none."""
    outcome = run([], str(full.root), uri)

    expected = ExitCode.OK if uri == f"hf://{MODEL}:main" else ExitCode.NOT_FOUND
    assert outcome.returncode == expected, outcome.stdout + outcome.stderr
    assert "network events" not in outcome.stdout


def test_the_check_would_notice_a_connection(full: Cache) -> None:
    """The same child without ``offline`` is caught, so the proof proves something."""
    code = CHILD.replace(
        "Access(offline=True)", "Access(hf_endpoint='http://127.0.0.1:9', patience=Patience(attempts=1))"
    )
    code = code.replace("import Access", "import Access, Patience")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code, str(full.root), "hf://google/other"]
    outcome = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert outcome.returncode == 99
    assert "socket.connect" in outcome.stdout


def test_offline_without_a_list_takes_what_another_program_left(cache: Cache) -> None:
    """A snapshot without a list, as older programs leave it, is its own list, unless its index names more files."""
    snapshot = cache.root / "huggingface/hub/models--google--gemma/snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(b"{}")
    (snapshot / "model-1.safetensors").write_bytes(b"1")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    wanted = [FileRequest("*", "hf://google/gemma", include=("*.json", "*.safetensors"))]

    folder = fetch_workspace(wanted, cache, access(offline=True))
    assert {path.name for path in folder.iterdir()} == {"config.json", "model-1.safetensors"}

    index = '{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    (snapshot / "model.safetensors.index.json").write_text(index)
    with pytest.raises(NotFoundError, match="lacks hf://google/gemma"):
        fetch_workspace(wanted, cache, access(offline=True), Seen())
