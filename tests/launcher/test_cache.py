"""The cache folder: layout, rights, room, read-only volumes, users without a name, a drive that hangs."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from launcher.cache.links import build_workspace, link
from launcher.cache.report import inspect_cache, report_lines
from launcher.cache.store import Cache, make_folder, storage_error
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.download.sources import parse_source
from launcher.errors import CacheError, ChecksumError, DiskError, ExitCode, NotFoundError
from tests.launcher.download.conftest import Seen, access, content
from tests.launcher.download.servers import FileServer, hub_and_storage

ROOT = Path(__file__).parents[2]
BODY = content(150_000, 10)
IS_ROOT = os.geteuid() == 0
NOBODY = 12_345


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", scratch=tmp_path / "scratch")


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("hf://google/gemma-4-31B-it@main:a", "huggingface/hub/models--google--gemma-4-31B-it"),
        ("ngc://nim/google/gemma-4-31b-it:1?file=a", "ngc/hub/models--nim--google--gemma-4-31b-it"),
        ("ngc://nvidia/model:1?file=a", "ngc/hub/models--nvidia--model"),
    ],
)
def test_the_layout_is_nims(cache: Cache, uri: str, folder: str) -> None:
    """A volume that NIM filled has the same folders."""
    assert cache.repository(parse_source(uri)).path == cache.root / folder


def test_addresses_with_equal_file_names_have_places_of_their_own(cache: Cache) -> None:
    """Another host, folder or query is another file."""
    uris = ["https://a/x/f", "https://b/x/f", "https://a/y/f", "https://a/x/f?v=2", "s3://a/x/f", "s3://a/y/f"]

    assert len({cache.repository(parse_source(uri)).path for uri in uris}) == len(uris)


def test_what_is_made_has_the_rights_of_the_volume(tmp_path: Path) -> None:
    """The next container may have another uid: a volume that a group shares stays shared whatever the umask."""
    before = os.umask(0o077)
    try:
        for mode, expected in ((0o2770, 0o2770), (0o755, 0o755), (0o700, 0o700), (0o1777, 0o755)):
            volume = tmp_path / f"{mode:o}"
            volume.mkdir()
            volume.chmod(mode)
            make_folder(volume / "a" / "b")
            assert stat.S_IMODE((volume / "a" / "b").stat().st_mode) == expected
    finally:
        os.umask(before)


def test_too_little_room_is_told_before_the_first_byte(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is needed, how much is free, and where; nothing is fetched."""
    real = os.statvfs

    def nearly_full(path):
        facts = list(real(path))
        facts[4] = 10  # f_bavail, in blocks
        return os.statvfs_result(facts)

    monkeypatch.setattr(os, "statvfs", nearly_full)
    with FileServer({"/f": BODY}) as server, pytest.raises(DiskError) as caught:
        fetch_workspace([FileRequest("f", f"{server.url}/f", len(BODY), "0" * 64)], cache, access())

    assert caught.value.code == ExitCode.DISK_FULL
    assert "0.15 MB needed, 0.04 MB free" in caught.value.message
    assert str(cache.root.parent) in caught.value.message
    assert not server.requests


FILES_LIMIT = """
import resource, sys
from pathlib import Path
from launcher.cache.store import Cache
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.errors import LaunchError
from tests.launcher.download.conftest import access
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    fetch_workspace([FileRequest("f", sys.argv[2])], Cache(Path(sys.argv[1])), access())
except LaunchError as error:
    print(error.message)
    sys.exit(error.code)
"""


def run_child(code: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | options.pop("environment", {})
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_a_disk_that_fills_up_on_the_way_has_its_own_exit_code(cache: Cache) -> None:
    """A limit on file sizes stands for the quota; the process ends with the code for disks, not with a traceback."""
    with FileServer({"/f": BODY}) as server:
        outcome = run_child(FILES_LIMIT, str(cache.root), f"{server.url}/f")

    assert outcome.returncode == ExitCode.DISK_FULL, outcome.stderr
    assert "no room is left" in outcome.stdout
    assert "Traceback" not in outcome.stderr


def test_a_drive_that_does_not_answer_ends_the_start(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network drive whose server is gone hangs every call; the start says so instead of hanging with it."""
    released = threading.Event()
    monkeypatch.setattr("launcher.cache.store._look", lambda *_: released.wait(20))
    hanging = Cache(cache.root, probe_timeout_s=0.2)
    try:
        with pytest.raises(CacheError, match="does not answer within") as caught:
            fetch_workspace([FileRequest("f", "http://127.0.0.1:9/f")], hanging, access())
    finally:
        released.set()
    assert caught.value.code == ExitCode.CACHE_NOT_WRITABLE
    assert "NIM_CACHE_PROBE_TIMEOUT" in caught.value.remedy


def test_a_file_where_the_cache_should_be_is_named(tmp_path: Path) -> None:
    """Not a traceback."""
    (tmp_path / "cache").write_text("x")
    with pytest.raises(CacheError, match="is not a folder"):
        fetch_workspace([FileRequest("f", "http://127.0.0.1:9/f")], Cache(tmp_path / "cache"), access())


def test_errors_of_the_system_become_errors_for_people(tmp_path: Path) -> None:
    """Rights, room and broken drives have different exit codes."""
    cases = {13: CacheError, 30: CacheError, 28: DiskError, 122: DiskError, 5: DiskError, 116: CacheError}
    for number, kind in cases.items():
        error = storage_error(OSError(number, os.strerror(number)), tmp_path)
        assert type(error) is kind, number
        assert error.remedy


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder that every user may pass, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        volume = Path(name) / "volume"
        volume.mkdir(mode=0o755)
        yield volume


AS_NOBODY = """
import os, sys
from pathlib import Path
from launcher.cache.store import Cache
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.errors import LaunchError
from tests.launcher.download.conftest import access
from launcher.download.network import Client
import encodings.ascii, encodings.idna
Client(access())
# Only now: the interpreter may lie where another user cannot read.
os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(12345)
try:
    folder = fetch_workspace([FileRequest("f", sys.argv[2])], Cache(Path(sys.argv[1])), access())
    print((folder / "f").stat().st_size)
except LaunchError as error:
    print(error.message, error.remedy, sep="\\n")
    sys.exit(error.code)
"""


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
def test_a_user_without_name_and_home_fills_a_cache_of_group_0(volume: Path) -> None:
    """As OpenShift starts containers: a random uid, gid 0, no entry in passwd, no HOME."""
    volume.chmod(0o2770)
    with FileServer({"/f": BODY}) as server:
        outcome = run_child(AS_NOBODY, str(volume), f"{server.url}/f", "0", environment={"HOME": "/nowhere"})

        assert outcome.stdout.strip() == str(len(BODY)), outcome.stderr
        # Another user of the group goes on where this one ended: everything is the group's to write.
        assert all(path.stat().st_mode & stat.S_IWGRP for path in volume.rglob("*") if not path.is_symlink())


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
def test_a_cache_of_somebody_else_is_refused_with_the_command_that_helps(volume: Path) -> None:
    """NIM's "Permission denied (os error 13)" sends people to run as root; a chown does."""
    with FileServer({"/f": BODY}) as server:
        outcome = run_child(AS_NOBODY, str(volume), f"{server.url}/f", str(NOBODY))

    assert outcome.returncode == ExitCode.CACHE_NOT_WRITABLE, outcome.stderr
    assert f"{volume} cannot be written by uid {NOBODY}, gid {NOBODY}" in outcome.stdout
    assert "belongs to uid 0, gid 0, mode 0755" in outcome.stdout
    assert f"chown -R {NOBODY} {volume}" in outcome.stdout


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
def test_a_complete_cache_that_cannot_be_written_is_used_as_it_is(volume: Path) -> None:
    """The workspace is the one that was made when the cache was filled, or one in the temporary folder."""
    with FileServer({"/f": BODY}) as server:
        fetch_workspace([FileRequest("f", f"{server.url}/f")], Cache(volume), access())
        asked = len(server.requests)
        first = run_child(AS_NOBODY, str(volume), f"{server.url}/f", str(NOBODY))
        for path in (volume / "workspaces").rglob("*"):
            path.unlink() if path.is_symlink() else None
        second = run_child(AS_NOBODY, str(volume), f"{server.url}/f", str(NOBODY))

        assert (first.stdout.strip(), second.stdout.strip()) == (str(len(BODY)), str(len(BODY))), second.stderr
        assert len(server.requests) == asked


def test_a_local_folder_is_used_where_it_lies(cache: Cache, tmp_path: Path) -> None:
    """No copy, no network, no cache folder."""
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    (model / "a.gguf").write_bytes(BODY)
    (model / "sub" / "b.json").write_bytes(b"{}")

    everything = fetch_workspace([FileRequest("*", f"file://{model}")], cache, access(offline=True))
    one = fetch_workspace([FileRequest("m.gguf", str(model / "a.gguf"), len(BODY))], cache, access(offline=True))

    assert (everything / "sub" / "b.json").resolve() == model / "sub" / "b.json"
    assert (one / "m.gguf").resolve() == model / "a.gguf"
    with pytest.raises(NotFoundError, match="does not exist"):
        fetch_workspace([FileRequest("*", str(tmp_path / "none"))], cache, access())


def test_a_local_file_is_checked_once_and_never_touched(cache: Cache, tmp_path: Path) -> None:
    """A manifest's checksum counts for a file by path, too; a wrong one is refused, and nobody deletes it."""
    model = tmp_path / "a.gguf"
    model.write_bytes(BODY)
    right = [FileRequest("a.gguf", str(model), sha256=hashlib.sha256(BODY).hexdigest())]
    first, second = Seen(), Seen()
    fetch_workspace(right, cache, access(offline=True), first)
    fetch_workspace(right, cache, access(offline=True), second)

    assert (first.phases[0], second.phases) == ("checking", ["done"])
    with pytest.raises(ChecksumError, match=re.escape(str(model))):
        fetch_workspace([FileRequest("a.gguf", str(model), sha256="0" * 64)], cache, access())
    assert model.read_bytes() == BODY


def test_a_damaged_file_on_a_mirrors_disk_is_refused_and_left_alone(cache: Cache, tmp_path: Path) -> None:
    """Its bytes are checked although they are not copied."""
    disk = tmp_path / "disk"
    disk.mkdir()
    file = disk / quote("google/gemma:main?file=a.bin", safe="")
    file.write_bytes(b"damaged" + BODY[7:])
    wanted = [FileRequest("a.bin", "hf://google/gemma:main?file=a.bin", sha256=hashlib.sha256(BODY).hexdigest())]
    way = access(repository_override=str(disk))

    with pytest.raises(ChecksumError, match="is damaged"):
        fetch_workspace(wanted, cache, way)
    assert file.exists()
    file.write_bytes(BODY)
    assert (fetch_workspace(wanted, cache, way) / "a.bin").resolve() == file


def test_a_workspace_survives_that_the_volume_moves(cache: Cache, tmp_path: Path) -> None:
    """Links are relative: the volume may be mounted elsewhere tomorrow."""
    with hub_and_storage({"google/gemma": {"a.json": b"{}"}}) as hub:
        folder = fetch_workspace([FileRequest("*", "hf://google/gemma")], cache, access(hf_endpoint=hub.url))
    moved = tmp_path / "elsewhere"
    cache.root.rename(moved)

    assert (moved / folder.relative_to(cache.root) / "a.json").read_bytes() == b"{}"


def test_a_broken_workspace_is_made_anew(cache: Cache) -> None:
    """Somebody deleted a link."""
    with FileServer({"/f": BODY}) as server:
        wanted = [FileRequest("f", f"{server.url}/f")]
        folder = fetch_workspace(wanted, cache, access())
        (folder / "f").unlink()

        assert (fetch_workspace(wanted, cache, access()) / "f").read_bytes() == BODY


def test_a_volume_without_symbolic_links_gets_hard_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some network drives are."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    (tmp_path / "blob").write_bytes(b"x")
    link(tmp_path / "blob", tmp_path / "deep" / "name")

    assert (tmp_path / "deep" / "name").samefile(tmp_path / "blob")
    assert not (tmp_path / "deep" / "name").is_symlink()


def test_two_starts_may_make_the_same_workspace_at_once(cache: Cache) -> None:
    """Whoever is second finds it made."""
    blob = cache.root / "blob"
    make_folder(cache.root)
    blob.write_bytes(b"x")
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(build_workspace(cache, {"a": blob}))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(folders) == 8
    assert len(set(folders)) == 1
    assert (folders[0] / "a").read_bytes() == b"x"
    assert len(list((cache.root / "workspaces").iterdir())) == 1


def test_the_report_of_a_good_cache_says_what_the_volume_can(cache: Cache) -> None:
    """``check-cache-env``."""
    report = inspect_cache(cache, 1000)

    assert report.writable
    assert not report.problems
    assert report.has_locks
    assert report.has_links
    assert report.free_bytes
    assert report.filesystem
    assert any(str(cache.root) in line for line in report_lines(report))


def test_the_report_of_a_bad_cache_has_a_remedy_for_each_problem(tmp_path: Path) -> None:
    """Too small for the profile; or no folder at all."""
    small = inspect_cache(Cache(tmp_path / "cache"), 10**18)
    (tmp_path / "file").write_text("x")
    none = inspect_cache(Cache(tmp_path / "file"))

    assert [type(problem) for problem in small.problems] == [DiskError]
    assert [type(problem) for problem in none.problems] == [CacheError]
    for report in (small, none):
        lines = "\n".join(report_lines(report))
        assert all(problem.remedy in lines for problem in report.problems)


def test_a_cache_without_all_files_is_told_apart_offline(cache: Cache) -> None:
    """What is missing is named, with the command that fills the cache."""
    with hub_and_storage({"google/gemma": {"a.json": b"{}", "b.bin": BODY}}) as hub:
        fetch_workspace([FileRequest("*", "hf://google/gemma")], cache, access(hf_endpoint=hub.url))
    blob = next(path for path in cache.root.rglob("b.bin") if path.parent.parent.name == "snapshots")
    blob.unlink()

    with pytest.raises(NotFoundError, match=r"lacks b\.bin") as caught:
        fetch_workspace([FileRequest("*", "hf://google/gemma")], cache, access(offline=True), Seen())
    assert "download-to-cache" in caught.value.remedy
    with pytest.raises(NotFoundError, match="lacks hf://google/other"):
        fetch_workspace([FileRequest("*", "hf://google/other")], cache, access(offline=True))
