"""One file while it is fetched: which pieces are open, under way or done, and how its bytes are asked for."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from launcher.cache.records import Digest
from launcher.download.access import Tuning
from launcher.download.assets import Asset
from launcher.download.credentials import NoCredential, origin
from launcher.download.journal import PartialFile
from launcher.download.messages import host_of
from launcher.download.network import Client, Reply, TransientError
from launcher.download.progress import FilePhase, FileState
from launcher.download.refusals import refusal
from launcher.errors import NetworkError

_OK: Final = 200
_PARTIAL: Final = 206
_REFUSED_LINK: Final = frozenset({400, 401, 403, 404, 410})
# Storage networks sign links for an hour or so; asking again each ten minutes is far from either end.
_LINK_LIVES_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive pieces that one request asks for."""

    first: int
    count: int


class NoRangesError(Exception):
    """The server sends whole files only."""


class Item:
    """A file under way. Not safe for threads by itself: ``Queue`` in ``transfer`` guards what is shared."""

    def __init__(self, asset: Asset, tuning: Tuning) -> None:
        """Open the partial file.

        Raises:
            OSError: as the system has it.
        """
        self.asset = asset
        self._tuning = tuning
        self.partial = PartialFile(
            asset.blob.parent, asset.blob.name, asset.size, min(tuning.piece, max(asset.size, 1)), asset.identity
        )
        self._todo = self.partial.missing()
        self.active = 0
        self.in_one_go = False
        self.rounds = 0
        self.phase = FilePhase.QUEUED
        self._validator = asset.validator
        self._link: tuple[str, float] | None = None

    def take(self) -> Span | None:
        """Hand out the next pieces; the nearer the end, the fewer, so that all connections end together."""
        if not self._todo or (self.in_one_go and self.active):
            return None
        self.phase = FilePhase.DOWNLOADING
        self.active += 1
        if self.in_one_go:
            self._todo.clear()
            return Span(0, self.partial.pieces)
        share = len(self._todo) // (2 * self._tuning.connections)
        most = max(1, min(share, self._tuning.segment // self.partial.piece))
        first = heapq.heappop(self._todo)
        count = 1
        while count < most and self._todo and self._todo[0] == first + count:
            heapq.heappop(self._todo)
            count += 1
        return Span(first, count)

    def give_back(self, span: Span) -> None:
        """Take back a span after its request; what it did not bring is open again."""
        self.active -= 1
        for index in range(span.first, span.first + span.count):
            self.reopen(index)

    def reopen(self, index: int) -> None:
        """Make one piece open again, if it is not on disk."""
        if not self.partial.has(index):
            heapq.heappush(self._todo, index)

    def start_over(self) -> None:
        """Forget all that was fetched.

        Raises:
            OSError: as the system has it.
        """
        self.partial.forget()
        self._todo = list(range(self.partial.pieces))

    def digest(self) -> Digest:
        """Return what computes this file's checksum."""
        return Digest(self.asset.size, self.asset.checksum)

    def state(self) -> FileState:
        """Return the state for the progress."""
        done = self.asset.size if self.phase is FilePhase.DONE else self.partial.bytes_done()
        return FileState(self.asset.name, self.phase, done, self.asset.size)

    def request(self, client: Client, span: Span) -> Reply:
        """Ask for a span and return the reply, its headers checked.

        Raises:
            TransientError: another attempt may succeed.
            NoRangesError: the server sends the whole file although a part was asked for.
            LaunchError: the server refuses, or has another file than it said.
        """
        is_whole = span.first == 0 and span.count == self.partial.pieces
        start = span.first * self.partial.piece
        end = min(self.asset.size, start + span.count * self.partial.piece)
        reply = self._open(client, {} if is_whole else {"Range": f"bytes={start}-{end - 1}"})
        try:
            self._check(reply, start, end, is_whole=is_whole)
        except BaseException:
            reply.close()
            raise
        return reply

    def pieces(self, reply: Reply, span: Span) -> Iterator[tuple[int, list[bytes]]]:
        """Cut a reply's body into the span's pieces as it arrives.

        Raises:
            TransientError: the body ends early.
        """
        index, blocks, room = span.first, list[bytes](), self.partial.length(span.first)
        for received in reply.blocks():
            block = received
            while block and index < span.first + span.count:
                part, block = block[:room], block[room:]
                blocks.append(part)
                room -= len(part)
                if room == 0:
                    yield index, blocks
                    index, blocks = index + 1, []
                    room = self.partial.length(index)
            if block:
                return  # more than announced; the connection is closed, not used again
        if index < span.first + span.count:
            raise TransientError("the body ended early")

    def _open(self, client: Client, headers: dict[str, str]) -> Reply:
        location = self.asset.location
        if self._link is not None:
            link, until = self._link
            if time.monotonic() < until:
                reply = client.open(link, NoCredential(), headers)
                if reply.status not in _REFUSED_LINK:
                    return reply
                reply.close()
            self._link = None
        reply = client.open(location.url, location.credential, headers)
        if origin(reply.url) != origin(location.url):
            if reply.status in _REFUSED_LINK:
                # The source itself said yes; what its storage says against a fresh link is no verdict about the key.
                reply.close()
                raise TransientError(f"{host_of(reply.url)} answered {reply.status} to a link that it was given")
            self._link = (reply.url, time.monotonic() + _LINK_LIVES_S)
        return reply

    def _check(self, reply: Reply, start: int, end: int, *, is_whole: bool) -> None:
        if reply.status == _PARTIAL and not is_whole:
            expected = f"bytes {start}-{end - 1}/{self.asset.size}"
            given = reply.headers.get("Content-Range", "").strip()
            if given != expected and given != expected.rpartition("/")[0] + "/*":
                raise self._other_file(f"it sent {given or 'no Content-Range'} for {expected}")
        elif reply.status == _OK:
            length = reply.headers.get("Content-Length")
            if length is not None and length.isdigit() and int(length) != self.asset.size:
                raise self._other_file(f"it has {length} bytes instead of {self.asset.size}")
            if not is_whole:
                raise NoRangesError
        elif reply.status == 416:  # noqa: PLR2004 - HTTP's own number
            raise self._other_file(f"it has fewer than {self.asset.size} bytes")
        else:
            raise refusal(self.asset.location.subject, reply)
        if reply.headers.get("Content-Encoding", "identity") != "identity":
            raise self._other_file("it is sent compressed, although that was not asked for")
        self._check_version(reply)

    def _check_version(self, reply: Reply) -> None:
        mark = reply.headers.get("ETag")
        # With a checksum a mix of versions cannot get through, and servers behind one name may disagree on marks.
        if mark is None or self.asset.checksum is not None:
            return
        if self._validator is None:
            self._validator = mark
        elif mark != self._validator:
            raise self._other_file("it was replaced while it was fetched")

    def _other_file(self, why: str) -> NetworkError:
        name = self.asset.location.subject.name
        return NetworkError(f"{name} is not the file that was announced: {why}", "start again; check proxy and mirror")
