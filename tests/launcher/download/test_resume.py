"""Downloads that are killed or damaged: the next process goes on, and only what is wrong comes again."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.cache.store import Cache
from launcher.download.fetch import FileRequest, fetch_workspace
from tests.fakes.processes import wait_until
from tests.launcher.download.conftest import PIECE, Seen, access, content
from tests.launcher.download.servers import Answer, FileServer, Request

BODY = content(120 * PIECE + 11, 6)
SHA256 = hashlib.sha256(BODY).hexdigest()
ROOT = Path(__file__).parents[3]
CHILD = """
import sys
from pathlib import Path
from launcher.cache.store import Cache
from launcher.download.fetch import FileRequest, fetch_workspace
from tests.launcher.download.conftest import access
wanted = FileRequest("model.gguf", sys.argv[2], sha256=sys.argv[3] or None)
fetch_workspace([wanted], Cache(Path(sys.argv[1])), access())
"""


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/model.gguf": BODY}) as server:
        yield server


def start_child(server: FileServer, cache: Cache, sha256: str = SHA256) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", CHILD, str(cache.root), f"{server.url}/model.gguf", sha256]
    return subprocess.Popen(words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def fetch(server: FileServer, cache: Cache, seen: Seen | None = None, *, verify: bool = False) -> Path:
    wanted = FileRequest("model.gguf", f"{server.url}/model.gguf", sha256=SHA256)
    return fetch_workspace([wanted], cache, access(), seen, verify=verify) / "model.gguf"


def blob(cache: Cache) -> Path:
    return next(path for path in cache.root.rglob(SHA256) if path.parent.name == "blobs")


@pytest.mark.parametrize("sha256", [SHA256, ""])
def test_a_download_survives_kill_9_again_and_again(server: FileServer, cache: Cache, sha256: str) -> None:
    """Four times killed in the middle; in the end the file is right, and few bytes came twice."""
    limit = [0]

    def hold(_: Request, answer: Answer) -> Answer:
        # Each life gets so far and no further, so that the kill hits a download that is under way.
        if server.sent > limit[0]:
            answer.pause = (len(answer.body) // 2, released)
        return answer

    released = threading.Event()
    server.faults.append(hold)
    for share in (0.15, 0.35, 0.55, 0.8):
        limit[0] = int(share * len(BODY))
        child = start_child(server, cache, sha256)
        try:
            wait_until(lambda child=child: server.sent > limit[0] or child.poll() is not None)
            assert child.poll() is None
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
    server.faults.clear()
    released.set()

    folder = fetch_workspace(
        [FileRequest("model.gguf", f"{server.url}/model.gguf", sha256=sha256 or None)], cache, access()
    )

    assert (folder / "model.gguf").read_bytes() == BODY
    # Each kill loses at most what four connections had in hand.
    again = server.settled() - len(BODY)
    assert again < 0.6 * len(BODY)
    assert not [*cache.root.rglob("*.partial"), *cache.root.rglob("*.journal")]


def test_damage_to_an_unfinished_file_costs_only_the_damaged_pieces(server: FileServer, cache: Cache) -> None:
    """Bits that rot on the disk between two runs are found by the piece's mark and fetched again."""

    def refuse_the_end(request: Request, _: Answer) -> Answer | None:
        return Answer(404) if request.start >= 90 * PIECE else None

    server.faults.append(refuse_the_end)
    with pytest.raises(Exception, match="there is no"):
        fetch(server, cache)
    server.faults.clear()
    partial = next(cache.root.rglob("*.partial"))
    done = len(partial.with_suffix(".journal").read_text().split("\n")) - 2
    with partial.open("r+b") as file:
        file.seek(PIECE + 5)
        file.write(b"rotten")
    sent = server.settled()

    assert fetch(server, cache).read_bytes() == BODY
    assert server.settled() - sent <= len(BODY) - (done - 1) * PIECE + 1


def test_damage_to_a_finished_file_is_found_and_mended_in_place(server: FileServer, cache: Cache) -> None:
    """A file that was written since it was checked is read at the next start; only its bad pieces come again."""
    fetch(server, cache)
    with blob(cache).open("r+b") as file:
        file.seek(7 * PIECE)
        file.write(b"\0" * (PIECE + 1))
    sent = server.settled()
    seen = Seen()

    assert fetch(server, cache, seen).read_bytes() == BODY
    assert server.settled() - sent <= 2 * PIECE + 1
    assert "checking" in seen.phases


def test_silent_damage_is_found_when_asked_to_verify(server: FileServer, cache: Cache) -> None:
    """Damage that leaves size and time as they were shows when every byte is read."""
    fetch(server, cache)
    facts = blob(cache).stat()
    with blob(cache).open("r+b") as file:
        file.seek(3 * PIECE)
        file.write(b"rotten")
    os.utime(blob(cache), ns=(facts.st_atime_ns, facts.st_mtime_ns))

    assert fetch(server, cache).read_bytes() != BODY
    assert fetch(server, cache, verify=True).read_bytes() == BODY


def test_a_truncated_file_is_fetched_again(server: FileServer, cache: Cache) -> None:
    """A size that does not fit is enough to distrust it."""
    fetch(server, cache)
    os.truncate(blob(cache), 100)

    assert fetch(server, cache).read_bytes() == BODY


def test_a_touched_file_is_read_once_and_trusted_again(server: FileServer, cache: Cache) -> None:
    """Copying a cache changes times; that costs one reading and no byte of network."""
    fetch(server, cache)
    os.utime(blob(cache))
    sent = server.settled()
    first, second = Seen(), Seen()
    fetch(server, cache, first)
    fetch(server, cache, second)

    assert server.settled() == sent
    assert "checking" in first.phases
    assert second.phases == ["done"]


def test_an_unfinished_file_of_another_version_is_dropped(server: FileServer, cache: Cache) -> None:
    """A journal is gone on with only for the same content."""

    def refuse_the_end(request: Request, _: Answer) -> Answer | None:
        return Answer(404) if request.start >= 60 * PIECE else None

    server.faults.append(refuse_the_end)
    request = FileRequest("model.gguf", f"{server.url}/model.gguf")
    with pytest.raises(Exception, match="there is no"):
        fetch_workspace([request], cache, access())
    server.faults.clear()
    server.files["/model.gguf"] = newer = content(len(BODY), 7)

    assert (fetch_workspace([request], cache, access()) / "model.gguf").read_bytes() == newer


def test_a_journal_that_was_cut_short_or_is_nonsense_costs_bytes_but_no_file(server: FileServer, cache: Cache) -> None:
    """A crash of the machine may leave anything in the journal."""

    def refuse_the_end(request: Request, _: Answer) -> Answer | None:
        return Answer(404) if request.start >= 60 * PIECE else None

    for nonsense in (b"", b"\0\0\0", b'{"version": 1}\n', b"[]\n1 00000000\n"):
        server.faults.append(refuse_the_end)
        with pytest.raises(Exception, match="there is no"):
            fetch(server, cache)
        server.faults.clear()
        next(cache.root.rglob("*.journal")).write_bytes(nonsense)
    journal = next(cache.root.rglob("*.journal"))
    server.faults.append(refuse_the_end)
    with pytest.raises(Exception, match="there is no"):
        fetch(server, cache)
    server.faults.clear()
    journal.write_bytes(journal.read_bytes()[:-6] + b"\n999999 00000000\nx y z\n5 zzzzzzzz")

    assert fetch(server, cache).read_bytes() == BODY
