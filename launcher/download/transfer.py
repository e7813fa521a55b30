"""Fetches many files at once: threads that ask for spans of pieces, threads that check what is on disk behind them.

The checkers read each file from the beginning as its pieces arrive, so the checksum is ready a moment after the last
byte. A piece that is not what was written is fetched again; a file whose checksum is wrong is fetched again, once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from launcher.cache.records import Digest, Record
from launcher.cache.store import storage_error
from launcher.download.access import Access
from launcher.download.assets import Asset
from launcher.download.item import Item, NoRangesError, Span
from launcher.download.network import Client, Reply, TransientError
from launcher.download.progress import DownloadState, FilePhase, Phase, Progress, Rate
from launcher.download.retry import Attempts, Cancelled, Pace
from launcher.errors import ChecksumError

_TICK_S: Final = 0.25
_CHECKERS: Final = 4
_ROUNDS: Final = 2
Finished = Callable[[Asset, Record], None]


class Transfer:
    """One run over some files."""

    def __init__(self, assets: Sequence[Asset], access: Access, client: Client, finished: Finished) -> None:
        """Open the partial files; smaller files come first, so that a refusal shows before the large ones.

        No two ``assets`` have the same ``blob``. ``finished`` is called by a checking thread when a file has its name.

        Raises:
            OSError: as the system has it.
        """
        self._items = [Item(asset, access.tuning) for asset in sorted(assets, key=lambda asset: asset.size)]
        self._access = access
        self._client = client
        self._finished = finished
        self._pace = Pace(access.patience)
        self._changed = threading.Condition()
        self._unchecked = list(self._items)
        self._open_files = len(self._items)
        self._received = 0
        self._replies: set[Reply] = set()
        self._error: BaseException | None = None
        self._rate = Rate()

    def run(self, progress: Progress) -> int:
        """Fetch everything; returns the bytes that came over the network.

        Raises:
            LaunchError: a source refuses, the network fails too often, a checksum stays wrong, or the disk is full.
            BaseException: whatever ``progress`` raised.
        """
        threads = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True, name=f"download-{number}")
            for number, work in enumerate(
                [self._fetch_loop] * self._access.tuning.connections
                + [self._check_loop] * min(_CHECKERS, len(self._items))
            )
        ]
        for thread in threads:
            thread.start()
        try:
            self._watch(progress)
        finally:
            self._stop()
            self._close(threads)
        return self._count_received()

    def _close(self, threads: Sequence[threading.Thread]) -> None:
        end = time.monotonic() + self._access.patience.connect_s
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            return  # its next write would go to whatever file got the closed one's number
        for item in self._items:
            item.partial.close()

    def _watch(self, progress: Progress) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._error is not None or self._open_files == 0, _TICK_S)
                if self._error is not None:
                    raise self._error
                is_over = self._open_files == 0
                state = self._state()
            progress.update(state)
            if is_over:
                return

    def _state(self) -> DownloadState:
        files = tuple(item.state() for item in self._items)
        done, total = sum(file.bytes_done for file in files), sum(item.asset.size for item in self._items)
        received = self._count_received()
        rate = self._rate(received)
        eta = (total - done) / rate if rate else None
        return DownloadState(Phase.DOWNLOADING, done, total, received, rate, eta, files, self._pace.note)

    def _stop(self) -> None:
        self._pace.stop.set()
        with self._changed:
            replies = list(self._replies)
            self._changed.notify_all()
        for reply in replies:
            reply.abort()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Cancelled:
            return
        except OSError as error:
            self._fail(storage_error(error, self._items[0].asset.blob))
        except BaseException as error:  # noqa: BLE001 - the thread's end: the caller of run raises it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if not self._pace.stop.is_set():
                self._error = self._error or error
            self._changed.notify_all()

    def _fetch_loop(self) -> None:
        attempts = self._pace.attempts()
        while (work := self._next_span()) is not None:
            item, span = work
            try:
                self._pace.wait_for_turn()
                self._fetch(item, span, attempts)
            except TransientError as error:
                self._give_back(item, span)
                attempts.failed(error)
            except NoRangesError:
                item.in_one_go = True
                self._give_back(item, span)
            else:
                self._give_back(item, span)

    def _next_span(self) -> tuple[Item, Span] | None:
        with self._changed:
            while self._open_files and not self._pace.stop.is_set():
                for item in self._items:
                    if span := item.take():
                        return item, span
                self._changed.wait()
        return None

    def _give_back(self, item: Item, span: Span) -> None:
        with self._changed:
            item.give_back(span)
            self._changed.notify_all()

    def _fetch(self, item: Item, span: Span, attempts: Attempts) -> None:
        with item.request(self._client, span) as reply:
            self._remember(reply)
            try:
                for index, blocks in item.pieces(reply, span):
                    if not item.partial.has(index):
                        item.partial.write(index, blocks)
                        attempts.succeeded()
                    with self._changed:
                        self._changed.notify_all()
                    self._pace.wait(0)
            finally:
                with self._changed:
                    self._replies.discard(reply)
                    self._received += reply.received

    def _count_received(self) -> int:
        return self._received + sum(reply.received for reply in tuple(self._replies))

    def _remember(self, reply: Reply) -> None:
        with self._changed:
            self._replies.add(reply)
        self._pace.wait(0)  # a stop that came just before would not have found this reply

    def _check_loop(self) -> None:
        while True:
            with self._changed:
                if not self._unchecked:
                    return
                item = self._unchecked.pop(0)
            self._check(item)

    def _check(self, item: Item) -> None:
        digest = self._read_all(item)
        while not digest.matches():
            item.rounds += 1
            if item.rounds >= _ROUNDS:
                raise ChecksumError(
                    f"{item.asset.location.subject.name} has a wrong checksum, also after it was fetched again",
                    "the source's file is damaged or was replaced; check the mirror, or report it to the publisher",
                )
            with self._changed:
                item.start_over()
                self._changed.notify_all()
            digest = self._read_all(item)
        self._finish(item, digest)

    def _read_all(self, item: Item) -> Digest:
        digest, partial = item.digest(), item.partial
        for index in range(partial.pieces):
            while (data := self._piece(item, index)) is None:
                with self._changed:
                    item.reopen(index)
                    self._changed.notify_all()
            digest.update(data)
        return digest

    def _piece(self, item: Item, index: int) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: item.partial.has(index) or self._pace.stop.is_set())
            self._pace.wait(0)
            if item.phase is FilePhase.DOWNLOADING and item.partial.is_complete:
                item.phase = FilePhase.VERIFYING
        return item.partial.read(index)

    def _finish(self, item: Item, digest: Digest) -> None:
        asset, partial = item.asset, item.partial
        crcs = tuple(partial.crcs())
        partial.finish(asset.blob)
        facts = asset.blob.stat()
        self._finished(
            asset, Record(facts.st_size, facts.st_mtime_ns, digest.sha256, partial.piece, crcs, asset.checksum)
        )
        with self._changed:
            item.phase = FilePhase.DONE
            self._open_files -= 1
            self._changed.notify_all()
