"""``python -m benchmarks.images``: JPEGs of 12 megapixels to model input, and what they do to other clients.

First the CPU time of one picture: our decoding, the same through the decoder process, plain Pillow, and transformers'
slow and fast processors where an environment has them. Then the lateness of the API process's event loop while 32 such
pictures arrive at once. All times are CPU times of one thread except the lateness, which is by the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import concurrent.futures
import contextlib
import functools
import io
import json
import lzma
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import PIL.Image
import requests
from rich.console import Console
from rich.table import Table

from api.media.decode import decode_image
from api.media.decoder import DecoderLimits
from api.media.decoder_pool import DecoderPool
from api.media.encoded import EncodedPicture
from api.media.size import Budget, fit
from benchmarks.image_set import photo
from benchmarks.processes import accepts, cpu_seconds, free_port, running

SIZE: Final = (4032, 3024)
QUALITIES: Final = {
    "smooth, quality 75": (1.6, 75),
    "photograph, quality 85": (1.15, 85),
    "busy, quality 92": (1.0, 92),
}
PEER_PYTHON: Final = Path(".venv-train/bin/python")
MODEL: Final = "benchmark"
TOKENIZER: Final = Path(__file__).parent.parent / "tests" / "data" / "gemma4" / "tokenizer.json.xz"
PICTURES: Final = 32
THROUGH: Final = "ours, through the decoder process"
_PEER_TIMEOUT_S: Final = 600
_LEAST_URGENT: Final = 19


def make_pictures() -> dict[str, bytes]:
    """Return the JPEG files by name; their detail falls with its fineness as in photographs, faster or slower."""
    files = {}
    for number, (name, (slope, quality)) in enumerate(QUALITIES.items()):
        file = io.BytesIO()
        photo(SIZE, number, slope=slope).save(file, "JPEG", quality=quality)
        files[name] = file.getvalue()
    return files


def cpu_median(work: Callable[[], object], rounds: int) -> float:
    """Return the median CPU time of this process for ``work``, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def plain_pillow(data: bytes, budget: int) -> bytes:
    """Decode in full and resize, as one would without further thought."""
    with PIL.Image.open(io.BytesIO(data)) as picture:
        whole = picture.convert("RGB")
        return whole.resize(fit(*whole.size, budget), PIL.Image.Resampling.BICUBIC).tobytes()


def least(data: bytes) -> bytes:
    """Decode at 1/8 scale: hardly more than reading the file's entropy-coded data, which nobody can leave out."""
    with PIL.Image.open(io.BytesIO(data)) as picture:
        picture.draft(None, (picture.width // 8, picture.height // 8))
        return picture.tobytes()


async def through_pool(data: bytes, budget: int, rounds: int) -> float:
    """Return the CPU time of one picture through a decoder process: that process's and ours together."""
    pool = DecoderPool(DecoderLimits(processes=1))
    picture, wanted = EncodedPicture(data), Budget(budget)
    try:
        await pool.decode(picture, wanted)
        before = cpu_seconds(pool.pids[0]) + time.process_time()
        for _ in range(rounds):
            await pool.decode(picture, wanted)
        return (cpu_seconds(pool.pids[0]) + time.process_time() - before) / rounds
    finally:
        await pool.close()


def measure_peers(python: Path, files: dict[str, bytes], budget: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the CPU time by processor and picture; empty where the environment lacks transformers."""
    if not python.exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, data in files.items():
            paths.append(Path(folder) / f"{name}.jpg")
            paths[-1].write_bytes(data)
        command = [
            str(python),
            "-m",
            "benchmarks.image_peers",
            *map(str, paths),
            f"--budget={budget}",
            f"--rounds={rounds}",
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=_PEER_TIMEOUT_S)  # noqa: S603 - ours
    if done.returncode:
        return {}
    figures: dict[str, dict[str, float]] = json.loads(done.stdout)
    return figures


def speed_table(python: Path, budget: int, rounds: int) -> Table:
    """Measure everything that turns one file into model input."""
    files = make_pictures()
    here: dict[str, Callable[[bytes], object]] = {
        "ours": lambda data: decode_image(data, Budget(budget)),
        "plain Pillow": lambda data: plain_pillow(data, budget),
        "reading the file alone (decoded at 1/8)": least,
    }
    rows: dict[str, dict[str, float]] = {name: {} for name in ("ours", THROUGH, *here)}
    for name, data in files.items():
        rows[THROUGH][name] = asyncio.run(through_pool(data, budget, rounds))
        for row, work in here.items():
            rows[row][name] = cpu_median(functools.partial(work, data), rounds)
    for name, figures in measure_peers(python, files, budget, rounds).items():
        rows[f"transformers, {name}"] = figures
    table = Table(title=f"{SIZE[0]} x {SIZE[1]} JPEG to model input at {budget} tokens: images per second and core")
    table.add_column("")
    for name, data in files.items():
        table.add_column(f"{name} ({len(data) / 1e6:.1f} MB)", justify="right")
    base = rows[THROUGH]
    for row, figures in rows.items():
        cells = [f"{1 / figures[name]:.1f} ({figures[name] / base[name]:.1f}x)" for name in files]
        table.add_row(row, *cells)
    table.caption = "In brackets: CPU time as a multiple of ours through the decoder process."
    if not any("transformers" in row for row in rows):
        table.caption += f" {python} has no transformers (and torchvision for the fast one): not measured."
    return table


def small_table(rounds: int) -> Table:
    """Measure what the decoder process adds to a picture of 64 x 64 pixels."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), "teal").save(file, "PNG")
    data = file.getvalue()
    table = Table(title="64 x 64 PNG, CPU ms")
    for heading in ("budget", "ours", "through the decoder process", "more"):
        table.add_column(heading, justify="right")
    for budget in (70, 280, 1120):
        here = cpu_median(lambda budget=budget: decode_image(data, Budget(budget)), rounds) * 1000  # type: ignore[misc]
        there = asyncio.run(through_pool(data, budget, rounds)) * 1000
        table.add_row(str(budget), f"{here:.2f}", f"{there:.2f}", f"{there - here:+.2f}")
    return table


def lateness_table(pictures: int) -> Table:
    """Measure the API process's event loop, idle and while pictures arrive."""
    files = list(make_pictures().values())
    table = Table(
        title=f"Event loop of the API process, ms, while {pictures} pictures of 12 megapixels are handled at once"
    )
    for heading in ("", "late, 99th of 100", "late, at most", "own work in one go, at most", "seconds"):
        table.add_column(heading, justify="right" if heading else "left")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port, out = _start(folder, stack)
        bodies = [_body(files[number % len(files)]) for number in range(pictures)]
        for title, load in (("idle", []), ("pictures", bodies)):
            _wait(out)
            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(pictures) as executor:
                statuses = list(executor.map(lambda body: _post(port, body), load))
            if any(status != requests.codes.ok for status in statuses):
                raise ValueError(f"not all pictures were seen: {statuses}")
            seconds = time.monotonic() - start
            found = _read(out)
            late = found["late"][max(0, len(found["late"]) - found["count"] // 100)] if found["late"] else 0
            figures = (late, found["late"][-1], found["own"][-1])
            table.add_row(title, *(f"{value * 1000:.2f}" for value in figures), f"{seconds:.1f}")
    return table


def _start(folder: Path, stack: contextlib.ExitStack) -> tuple[int, Path]:
    """Start the watched API process and the engine; return the port and the file with the measurements.

    From here on this process and the engine have the lowest priority.
    """
    socket, out, port = folder / "engine.sock", folder / "late.json", free_port()
    (folder / "tokenizer.json").write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    runtime = {
        "engine_endpoints": [f"unix:{socket}"],
        "tokenizer_path": str(folder / "tokenizer.json"),
        "served_names": [MODEL],
        "created": 1,
    }
    (folder / "api.json").write_text(json.dumps(runtime))
    api = ["-m", "benchmarks.watched_api", "--runtime", str(folder / "api.json"), "--out", str(out)]
    variables = {"NIM_SERVER_PORT": str(port), "NIM_SERVER_HOST": "127.0.0.1", "NIM_IMAGE_CACHE_BYTES": "0"}
    stack.enter_context(running(api, lambda: accepts(port), folder / "api.log", variables=variables))
    # The clients stand for other machines, and the engine computes nothing: neither may take the API's cores away.
    os.nice(_LEAST_URGENT)
    engine = ["-m", "benchmarks.image_engine", "--endpoint", f"unix:{socket}"]
    stack.enter_context(running(engine, lambda: _is_ready(port), folder / "engine.log"))
    return port, out


def _is_ready(port: int) -> bool:
    return accepts(port) and requests.get(f"http://127.0.0.1:{port}/v1/health/ready", timeout=10).ok


def _body(data: bytes) -> bytes:
    url = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    return json.dumps({"max_tokens": 1, "messages": [{"role": "user", "content": content}]}).encode()


def _post(port: int, body: bytes) -> int:
    return requests.post(f"http://127.0.0.1:{port}/v1/chat/completions", data=body, timeout=300).status_code


def _wait(out: Path) -> None:
    """Let the watch start anew."""
    for _ in range(2):
        out.unlink(missing_ok=True)
        _read(out)


def _read(out: Path) -> dict[str, list[float]]:
    """Return what the watch writes next."""
    out_before = out.stat().st_mtime_ns if out.exists() else 0
    while not out.exists() or out.stat().st_mtime_ns == out_before or not out.read_text():
        time.sleep(0.05)
    found: dict[str, list[float]] = json.loads(out.read_text())
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="runs per figure; the median counts")
    parser.add_argument("--budget", type=int, default=280)
    parser.add_argument("--pictures", type=int, default=PICTURES, help="how many arrive at once")
    parser.add_argument("--peer-python", type=Path, default=PEER_PYTHON, help="interpreter with transformers")
    options = parser.parse_args()
    console = Console(width=120)
    console.print(speed_table(options.peer_python, options.budget, options.rounds))
    console.print(small_table(options.rounds * 3))
    console.print(lateness_table(options.pictures))


if __name__ == "__main__":
    main()
