"""What networks do to downloads: broken connections, odd and busy servers, wrong bytes. A file is right or absent."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.cache.store import Cache
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.errors import ChecksumError, ExitCode, LaunchError, NetworkError, NotFoundError
from tests.launcher.download.conftest import PATIENCE, PIECE, Seen, access, content
from tests.launcher.download.servers import Answer, FileServer, Request

BODY = content(20 * PIECE + 77, 5)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/m/model.gguf": BODY}) as server:
        yield server


def wanted(server: FileServer, **facts: object) -> FileRequest:
    return FileRequest("model.gguf", f"{server.url}/m/model.gguf", **facts)


def fetch(server: FileServer, cache: Cache, progress: Seen | None = None, **values: object) -> bytes:
    folder = fetch_workspace([wanted(server, sha256=SHA256)], cache, access(**values), progress)
    return (folder / "model.gguf").read_bytes()


def leftovers(cache: Cache) -> list[Path]:
    return [*cache.root.rglob("*.partial"), *cache.root.rglob("*.journal"), *cache.root.rglob(".new-*")]


def test_one_file_is_fetched_in_several_ranges_at_once(server: FileServer, cache: Cache) -> None:
    """Each byte is asked for once, in parts that overlap nowhere."""
    assert fetch(server, cache) == BODY

    ranges = sorted(request.headers["Range"] for request in server.requests if "Range" in request.headers)
    assert len(ranges) > 4
    assert server.settled() == len(BODY) + 1  # one byte tells the size
    assert not leftovers(cache)


def test_a_server_without_ranges_gets_one_plain_request(server: FileServer, cache: Cache) -> None:
    """It works, one connection at a time."""
    server.has_ranges = False

    assert fetch(server, cache) == BODY


def test_a_connection_that_breaks_within_the_body_costs_no_finished_piece(server: FileServer, cache: Cache) -> None:
    """Every third answer is cut in the middle; what arrived before is kept."""
    count = iter(range(10_000))

    def cut(_: Request, answer: Answer) -> Answer:
        if next(count) % 3 == 2:
            answer.cut_at = len(answer.body) // 2
        return answer

    server.faults.append(cut)

    assert fetch(server, cache) == BODY
    assert server.settled() < 2 * len(BODY)


def test_a_body_shorter_than_announced_is_noticed(server: FileServer, cache: Cache) -> None:
    """A server that always stops early ends the download with a reason, not with a short file."""

    def cut(request: Request, answer: Answer) -> Answer:
        if request.start >= 3 * PIECE:
            answer.cut_at = 5
        return answer

    server.faults.append(cut)

    with pytest.raises(NetworkError, match="attempts"):
        fetch(server, cache)
    assert not list(cache.root.rglob("snapshots/*/*"))


def test_a_range_that_was_not_asked_for_is_refused(server: FileServer, cache: Cache) -> None:
    """Bytes of another place would land in the wrong one."""

    def shift(request: Request, answer: Answer) -> Answer:
        if request.start:
            answer.headers["Content-Range"] = f"bytes 0-{len(answer.body) - 1}/{len(BODY)}"
        return answer

    server.faults.append(shift)

    with pytest.raises(NetworkError, match="not the file that was announced"):
        fetch(server, cache)


def test_a_compressed_answer_is_refused(server: FileServer, cache: Cache) -> None:
    """Nobody asked for it, and its bytes are not the file's."""
    server.faults.append(
        lambda _, answer: Answer(answer.status, answer.headers | {"Content-Encoding": "gzip"}, answer.body)
    )

    with pytest.raises(NetworkError, match="compressed"):
        fetch(server, cache)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_busy_servers_are_asked_again(server: FileServer, cache: Cache, status: int) -> None:
    """Three failures in a row are waited out."""
    left = [status] * 3

    def busy(request: Request, _: Answer) -> Answer | None:
        return Answer(left.pop()) if request.start and left else None

    server.faults.append(busy)

    assert fetch(server, cache) == BODY
    assert not left


@pytest.mark.slow
def test_retry_after_holds_back_every_connection(server: FileServer, cache: Cache) -> None:
    """Nobody asks again before the time that the server named."""
    told: list[float] = []
    early: list[Request] = []

    def limit(request: Request, _: Answer) -> Answer | None:
        now = time.monotonic()
        # Others go on until the one that was told has run: on a busy machine that takes a while.
        if told and 2.0 < now - told[0] < 3.9:
            early.append(request)
        if request.start >= 4 * PIECE and not told:
            told.append(now)
            return Answer(429, {"Retry-After": "4"})
        return None

    server.faults.append(limit)

    assert fetch(server, cache, patience=replace(PATIENCE, longest_pause_s=4.0)) == BODY
    assert told
    assert time.monotonic() - told[0] >= 4.0
    assert not early


def test_a_server_that_is_gone_ends_with_the_code_for_trying_again(cache: Cache) -> None:
    """Exit code 75 tells a supervisor that the same start may work later."""
    dead = FileRequest("model.gguf", "http://127.0.0.1:9/model.gguf", len(BODY), SHA256)

    with pytest.raises(NetworkError, match=r"127\.0\.0\.1:9 cannot be reached") as caught:
        fetch_workspace([dead], cache, access())

    assert caught.value.code == ExitCode.DOWNLOAD_FAILED
    assert caught.value.code.is_worth_a_retry


def test_a_stalled_connection_is_given_up(server: FileServer, cache: Cache) -> None:
    """A server that falls silent within a body does not hold up the start."""
    never = threading.Event()
    stalled: list[Request] = []

    def stall(request: Request, answer: Answer) -> Answer:
        if request.start and not stalled:
            stalled.append(request)
            answer.pause = (100, never)
        return answer

    server.faults.append(stall)
    # On a busy machine any connection may be silent for so long, so there are attempts enough for all of them.
    patience = replace(PATIENCE, stall_s=0.4, attempts=100)
    try:
        assert fetch(server, cache, patience=patience) == BODY
    finally:
        never.set()
    assert stalled


def test_wrong_bytes_from_the_source_are_fetched_again_as_a_whole(server: FileServer, cache: Cache) -> None:
    """A proxy that garbled one answer costs a second download and no wrong file."""
    garbled: list[Request] = []

    def garble(request: Request, answer: Answer) -> Answer:
        if request.start and not garbled:
            garbled.append(request)
            answer.body = b"\0" * len(answer.body)
        return answer

    server.faults.append(garble)

    assert fetch(server, cache) == BODY
    assert garbled


def test_a_source_with_other_bytes_than_the_checksum_ends_the_start(server: FileServer, cache: Cache) -> None:
    """After a second try it is the source that is wrong; nothing of it gets a name that an engine would read."""
    with pytest.raises(ChecksumError, match="wrong checksum"):
        fetch_workspace([wanted(server, sha256="0" * 64)], cache, access())

    assert server.settled() > 1.5 * len(BODY)
    assert not list(cache.root.rglob("snapshots/*/*"))


def test_a_file_without_checksum_that_changes_while_it_is_fetched_is_refused(server: FileServer, cache: Cache) -> None:
    """Halves of two versions are never put together."""

    def exchange(request: Request, answer: Answer) -> Answer:
        if request.start >= 10 * PIECE:
            answer.headers["ETag"] = '"another version"'
        return answer

    server.faults.append(exchange)

    with pytest.raises(NetworkError, match="replaced while it was fetched"):
        fetch_workspace([wanted(server)], cache, access())


def test_a_size_other_than_the_manifests_is_told_before_the_download(server: FileServer, cache: Cache) -> None:
    """One byte is enough to find out."""
    with pytest.raises(NetworkError, match=f"has {len(BODY)} bytes, not the 12"):
        fetch_workspace([wanted(server, size=12)], cache, access())

    assert server.settled() <= 1


def test_a_missing_file_is_told_from_a_network_that_fails(server: FileServer, cache: Cache) -> None:
    """404 is final: nothing is tried again."""
    with pytest.raises(NotFoundError) as caught:
        fetch_workspace([FileRequest("x", f"{server.url}/x")], cache, access())

    assert caught.value.code == ExitCode.NOT_FOUND
    assert len(server.requests) == 1


def test_an_empty_file_is_a_file(server: FileServer, cache: Cache) -> None:
    """Zero bytes have no ranges."""
    server.files["/m/empty"] = b""
    folder = fetch_workspace([FileRequest("empty", f"{server.url}/m/empty")], cache, access())

    assert (folder / "empty").read_bytes() == b""


def test_a_length_that_only_the_manifest_knows_is_enough(server: FileServer, cache: Cache) -> None:
    """Some servers announce no length; with a size in the manifest they will do."""
    server.has_ranges = False

    def unannounced(_: Request, answer: Answer) -> Answer:
        answer.has_length = False
        return answer

    server.faults.append(unannounced)

    folder = fetch_workspace([wanted(server, size=len(BODY), sha256=SHA256)], cache, access())
    assert (folder / "model.gguf").read_bytes() == BODY
    with pytest.raises(NetworkError, match="does not say how long"):
        fetch_workspace([FileRequest("model.gguf", f"{server.url}/m/model.gguf?again")], cache, access())


def test_a_progress_that_raises_ends_the_download_and_keeps_the_pieces(server: FileServer, cache: Cache) -> None:
    """SIGTERM during a download: the next start goes on."""

    class StopError(Exception):
        pass

    def stop(state) -> None:
        if state.bytes_done > 3 * PIECE:
            raise StopError

    slow = threading.Event()

    def hold(request: Request, answer: Answer) -> Answer:
        if request.start >= 12 * PIECE and not slow.is_set():
            answer.pause = (0, slow)
        return answer

    server.faults.append(hold)
    with pytest.raises(StopError):
        fetch(server, cache, Seen(stop))
    slow.set()
    sent = server.settled()

    assert fetch(server, cache) == BODY
    assert server.settled() - sent < len(BODY) - 2 * PIECE
    assert PATIENCE.attempts == 4


def test_two_different_files_cannot_have_one_name(server: FileServer, cache: Cache) -> None:
    """The workspace would hold either."""
    server.files["/m/other"] = b"other"
    both = [FileRequest("a", f"{server.url}/m/model.gguf"), FileRequest("a", f"{server.url}/m/other")]

    with pytest.raises(Exception, match="two different files are to be named a"):
        fetch_workspace(both, cache, access())


@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_network_does_the_file_is_right_or_an_error_is_named(
    server: FileServer, cache: Cache, seed: int
) -> None:
    """A third of all answers is broken in some way, by chance; no wrong byte gets through, in however many starts."""
    chance = random.Random(seed)

    def break_something(_: Request, answer: Answer) -> Answer | None:
        if answer.status not in (200, 206) or chance.random() > 0.33:
            return None
        kind = chance.randrange(5)
        if kind == 0:
            answer.cut_at = chance.randrange(len(answer.body) + 1)
        elif kind == 1:
            return Answer(chance.choice([500, 502, 503, 429]), {"Retry-After": "0"})
        elif kind == 2:
            answer.body = bytes(len(answer.body))
        elif kind == 3:
            answer.body = answer.body[: len(answer.body) // 2]
        else:
            answer.headers["Content-Range"] = (
                answer.headers.get("Content-Range", "bytes 0-0/1") if seed % 2 else "bytes x"
            )
        return answer

    server.faults.append(break_something)
    for _ in range(20):
        try:
            assert fetch(server, cache) == BODY
            break
        except LaunchError as error:
            assert error.remedy, error.message
            assert not list(cache.root.rglob("snapshots/*/*"))
    else:
        server.faults.clear()
        assert fetch(server, cache) == BODY
