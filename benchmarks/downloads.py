"""``python -m benchmarks.downloads``: a model of 2 GB from a local server, killed four times, damaged once, and timed.

Prints what is on the disk in the end and how many bytes came twice, then throughput and CPU time against curl and
``huggingface_hub`` from the same server in the same run. The server and each download are processes of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.hub_server import COMMIT, FILE, REPOSITORY
from config.environment import child_environment
from launcher.cache.store import Cache
from launcher.download.access import Access
from launcher.download.fetch import FileRequest, fetch_workspace

KILL_AT: Final = (0.2, 0.4, 0.6, 0.8)
_MIB: Final = 1024**2


@dataclass(frozen=True, slots=True)
class Bench:
    """What is served, and where things lie."""

    url: str
    folder: Path
    size: int
    sha256: str

    def count(self) -> int:
        """Return the bytes of the file that the server has sent so far."""
        with urllib.request.urlopen(f"{self.url}/count") as answer:  # noqa: S310 - our own server
            return int(json.load(answer)["sent"])

    def ours(self, name: str) -> list[str]:
        """Return the command that downloads with the product into the folder ``name``."""
        return [sys.executable, "-m", "benchmarks.downloads", "--fetch", str(self.folder / name), self.url]

    def library(self, name: str) -> list[str]:
        """Return the command that downloads with ``huggingface_hub`` into the folder ``name``."""
        call = f"get({REPOSITORY!r}, {FILE!r}, cache_dir=sys.argv[1])"
        code = f"import sys; from huggingface_hub import hf_hub_download as get; {call}"
        return [sys.executable, "-c", code, str(self.folder / name)]

    def library_variables(self) -> dict[str, str]:
        """Return what it needs in its environment."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@dataclass(frozen=True, slots=True)
class Run:
    """One timed download."""

    seconds: float
    cpu_s: float
    is_right: bool | None


def main() -> None:
    """Measure and print; with ``--fetch``, be the process that downloads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pace", type=float, default=0, help="megabytes per second of one connection; 0 is unlimited")
    parser.add_argument("--fetch", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fetch:
        fetch_workspace(
            [FileRequest("*", f"hf://{REPOSITORY}")],
            Cache(Path(options.fetch[0])),
            Access(hf_endpoint=options.fetch[1]),
        )
    else:
        _measure(options.megabytes * 1_000_000, options.runs, options.pace * 1e6)


def _measure(size: int, runs: int, pace: float) -> None:
    console = Console(width=None if sys.stdout.isatty() else 140)
    with tempfile.TemporaryDirectory(prefix="gemma4-nim-downloads-") as name:
        folder = Path(name)
        sha256 = _make_file(folder / "model.bin", size)
        words = [sys.executable, "-m", "benchmarks.hub_server", str(folder / "model.bin"), sha256, str(pace)]
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own process
        try:
            port = server.stdout.readline().strip() if server.stdout else ""
            bench = Bench(f"http://127.0.0.1:{port}", folder, size, sha256)
            console.print(_robustness(bench))
            console.print(_throughput(bench, runs))
        finally:
            server.kill()
            server.wait()


def _make_file(path: Path, size: int) -> str:
    digest, rest, block = hashlib.sha256(), size, bytearray(random.Random(0).randbytes(16 * _MIB))  # noqa: S311 - no secret
    with path.open("wb") as file:
        while rest:
            block[:8] = rest.to_bytes(8, "big")  # no two blocks are equal
            part = memoryview(block)[:rest]
            file.write(part)
            digest.update(part)
            rest -= len(part)
    return digest.hexdigest()


def _robustness(bench: Bench) -> Table:
    table = Table(
        title=f"{bench.size / 1e9:.1f} GB, killed four times with SIGKILL, damaged twice", title_justify="left"
    )
    for column in ("event", "sent by the server", "fetched again"):
        table.add_column(column, justify="left" if column == "event" else "right")
    start = bench.count()

    def row(event: str, again: int | None = None) -> None:
        table.add_row(
            event, f"{(bench.count() - start) / 1e6:,.1f} MB", "" if again is None else f"{again / 1e6:,.1f} MB"
        )

    for share in KILL_AT:
        process = subprocess.Popen(bench.ours("killed"))  # noqa: S603 - our own process
        while bench.count() - start < share * bench.size and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        row(f"killed at {share:.0%}" + ("" if process.wait() == -signal.SIGKILL else ", too late"))
    partial = next((bench.folder / "killed").rglob("*.partial"), None)
    if partial is not None:
        _damage(partial, bench.size // 10)
    subprocess.run(bench.ours("killed"), check=True)  # noqa: S603 - as above
    row("a finished piece damaged on disk, then left to finish", bench.count() - start - bench.size)
    blob = next(path for path in (bench.folder / "killed").rglob(bench.sha256))
    table.add_row("SHA-256 in the end", "right" if _sha256(blob) == bench.sha256 else "WRONG")
    before = bench.count()
    _damage(blob, bench.size // 2)
    subprocess.run(bench.ours("killed"), check=True)  # noqa: S603 - as above
    row("the finished file damaged, then started again", bench.count() - before)
    table.add_row("SHA-256 after mending", "right" if _sha256(blob) == bench.sha256 else "WRONG")
    left = [path.name for path in (bench.folder / "killed").rglob("*") if path.suffix in (".partial", ".journal")]
    table.add_row("files left over", ", ".join(left) or "none")
    shutil.rmtree(bench.folder / "killed")
    _kill_library(bench, table)
    return table


def _kill_library(bench: Bench, table: Table) -> None:
    """Add what one kill costs ``huggingface_hub``."""
    start, environment = bench.count(), child_environment(bench.library_variables())
    process = subprocess.Popen(bench.library("library"), env=environment)  # noqa: S603 - commands of this module
    while bench.count() - start < KILL_AT[-1] * bench.size and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    subprocess.run(bench.library("library"), env=environment, check=True)  # noqa: S603 - as above
    sent = bench.count() - start
    again = f"{(sent - bench.size) / 1e6:,.1f} MB"
    table.add_row(f"huggingface_hub, killed once at {KILL_AT[-1]:.0%}", f"{sent / 1e6:,.1f} MB", again)
    shutil.rmtree(bench.folder / "library")


def _throughput(bench: Bench, runs: int) -> Table:
    url = f"{bench.url}/{REPOSITORY}/resolve/{COMMIT}/{FILE}"
    out = str(bench.folder / "out")
    ways: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {
        "gemma4-nim (8 connections, checksum)": (bench.ours("out"), {}),
        "huggingface_hub (1 connection, no checksum)": (bench.library("out"), bench.library_variables()),
    }
    if curl := shutil.which("curl"):
        plain = [curl, "-sSf", "--create-dirs", "-o", f"{out}/model", url]
        summed = f"{' '.join(plain)} && sha256sum {out}/model > /dev/null"
        ways |= {"curl (1 connection, no checksum)": (plain, {}), "curl, then sha256sum": (["sh", "-c", summed], {})}
    table = Table(title=f"{bench.size / 1e9:.1f} GB from this machine, median of {runs}", title_justify="left")
    for column in ("", "seconds", "MB/s", "CPU seconds", "file"):
        table.add_column(column, justify="right" if column else "left")
    results: dict[str, list[Run]] = {name: [] for name in ways}
    for _ in range(runs):  # in turn, so that a change of the machine's load touches all alike
        for name, (command, variables) in ways.items():
            results[name].append(_timed(command, variables, bench))
    for name, found in results.items():
        seconds = statistics.median(run.seconds for run in found)
        cpu = statistics.median(run.cpu_s for run in found)
        is_right = all(run.is_right for run in found)
        rate = bench.size / seconds / 1e6
        table.add_row(name, f"{seconds:.2f}", f"{rate:,.0f}", f"{cpu:.2f}", "right" if is_right else "WRONG")
    return table


def _timed(command: Sequence[str], variables: Mapping[str, str], bench: Bench) -> Run:
    out = bench.folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    start = time.monotonic()
    process = subprocess.Popen(command, env=child_environment(variables))  # noqa: S603 - commands of this module
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    files = [path for path in out.rglob("*") if path.is_file() and path.stat().st_size == bench.size]
    is_right = process.returncode == 0 and bool(files) and _sha256(files[0]) == bench.sha256
    shutil.rmtree(out, ignore_errors=True)
    return Run(seconds, usage.ru_utime + usage.ru_stime, is_right)


def _damage(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"damaged")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
