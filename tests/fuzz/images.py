"""``python -m tests.fuzz.images --minutes N``: broken pictures through the real HTTP route, for as long as you like.

Files of the corpus are mutated and sent to a real API process with its decoders, over a scripted engine. Ends with exit
code 1 and the offending file when any answer is not a 200 or a 400, when the API process dies, or when memory grows.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import statistics
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import requests

from tests.api.conftest import ScriptedServer, start_scripted_server
from tests.fakes.corpus import good, hostile
from tests.fakes.pictures import by_url, data_url

LARGEST_SEED: Final = 100_000
PICTURES_PER_REQUEST: Final = 3
SAMPLE_PAUSE_S: Final = 2.0
GROWTH_BYTES: Final = 24 * 1024 * 1024
"""What memory may differ between the second and the last quarter of a run: more pictures at once, not a leak."""
_EXTREMES: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_DECODER: Final = "api.media.decoder_process"


@dataclass
class Findings:
    """What happened so far; shared by all threads."""

    statuses: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    memory: dict[str, list[int]] = field(default_factory=lambda: {"api": [], "decoders": []})
    bad: list[tuple[str, list[bytes]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def mutate(rng: random.Random, seeds: list[bytes]) -> bytes:
    """Return a broken relative of one of the files."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 16, 64))):
        if not data:
            break
        # Half of the changes hit the first bytes, where formats keep what they promise.
        reach = min(len(data), 64) if rng.random() < 0.5 else len(data)
        place = rng.randrange(reach)
        _MUTATIONS[rng.randrange(len(_MUTATIONS))](rng, data, place)
    if rng.random() < 0.1:
        other = rng.choice(seeds)
        data += other[rng.randrange(len(other) + 1) :]
    if data[:4] == b"\x89PNG" and rng.random() < 0.7:
        _repair_checksums(data)
    return bytes(data)


def _flip(rng: random.Random, data: bytearray, place: int) -> None:
    data[place] ^= 1 << rng.randrange(8)


def _replace(rng: random.Random, data: bytearray, place: int) -> None:
    data[place] = rng.randrange(256)


def _number(rng: random.Random, data: bytearray, place: int) -> None:
    number = rng.choice(_EXTREMES)
    raw = struct.pack(rng.choice("<>") + "I", number)
    width = rng.choice((2, 4))
    data[place : place + width] = raw[:width]


def _remove(rng: random.Random, data: bytearray, place: int) -> None:
    del data[place : place + rng.randrange(1, 200)]


def _repeat(rng: random.Random, data: bytearray, place: int) -> None:
    data[place:place] = data[place : place + rng.randrange(1, 200)]


def _insert(rng: random.Random, data: bytearray, place: int) -> None:
    data[place:place] = rng.randbytes(rng.randrange(1, 50))


def _cut(rng: random.Random, data: bytearray, place: int) -> None:
    del data[max(place, rng.randrange(len(data))) :]


_MUTATIONS: Final = (_flip, _flip, _replace, _replace, _number, _number, _remove, _repeat, _insert, _cut)


def _repair_checksums(data: bytearray) -> None:
    """Make a PNG's checksums right again, so that mutations reach what lies behind them."""
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4


def send(server: ScriptedServer, seeds: list[bytes], findings: Findings, seed: int, until: float) -> None:
    """Send mutated files until the time is over."""
    rng = random.Random(seed)
    with requests.Session() as session:
        while time.monotonic() < until and not findings.bad:
            files = [mutate(rng, seeds) for _ in range(rng.randrange(1, PICTURES_PER_REQUEST + 1))]
            parts = [by_url(data_url(data), detail=rng.choice(("low", "auto", "original"))) for data in files]
            body = {"messages": [{"role": "user", "content": parts}]}
            try:
                answer = session.post(f"{server.base_url}/v1/chat/completions", json=body, timeout=60)
            except requests.RequestException as error:
                findings.bad.append((repr(error), files))
                return
            with findings.lock:
                findings.statuses[answer.status_code] += 1
                if answer.status_code == requests.codes.bad_request:
                    message = answer.json()["error"]["message"]
                    findings.reasons[re.sub(r"\d+", "N", message.partition(": ")[2])] += 1
                elif answer.status_code != requests.codes.ok:
                    findings.bad.append((answer.text, files))
            server.core.requests.clear()


def watch(server: ScriptedServer, findings: Findings, until: float) -> None:
    """Note the memory of the processes, and that the API process lives, until the time is over."""
    process = server.process.process
    while time.monotonic() < until and not findings.bad and process is not None:
        if process.poll() is not None:
            findings.bad.append((f"the API process ended with {process.returncode}", []))
            return
        decoders = [resident_bytes(pid) for pid in server.process.children(_DECODER)]
        with findings.lock:
            findings.memory["api"].append(resident_bytes(process.pid))
            findings.memory["decoders"].append(max(decoders, default=0))
        time.sleep(SAMPLE_PAUSE_S)


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is its own, 0 when it has ended."""
    with contextlib.suppress(OSError):
        found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def growth_bytes(samples: list[int]) -> int:
    """Return how much more the last quarter of a run used than the second one, by medians."""
    quarter = len(samples) // 4
    if not quarter:
        return 0
    return int(statistics.median(samples[-quarter:]) - statistics.median(samples[quarter : 2 * quarter]))


def fuzz(minutes: float, streams: int, seed: int) -> int:
    """Run and report; return the exit code."""
    # Mostly good pictures: what is hostile or no picture at all is refused early, however it is mutated.
    files = [case for case in (*[*good()] * 4, *hostile()) if not case.name.endswith("is-no-picture")]
    seeds = [case.data for case in files if 0 < len(case.data) <= LARGEST_SEED]
    findings = Findings()
    variables = {"NIM_IMAGE_CACHE_BYTES": str(8 * 1024 * 1024), "NIM_LOG_LEVEL": "WARNING"}
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    with start_scripted_server(folder, variables) as server:
        until = time.monotonic() + minutes * 60
        threads = [
            threading.Thread(target=send, args=(server, seeds, findings, seed + index, until))
            for index in range(streams)
        ]
        threads.append(threading.Thread(target=watch, args=(server, findings, until)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lost = server.process.log().count("a decoder was lost")
    growth = {name: growth_bytes(samples) for name, samples in findings.memory.items()}
    sys.stdout.write(report(findings, growth, minutes, lost))
    for index, (reason, files) in enumerate(findings.bad):
        for number, data in enumerate(files):
            (folder / f"bad-{index}-{number}").write_bytes(data)
        sys.stdout.write(f"BAD: {reason}; files in {folder}\n")
    return int(bool(findings.bad) or max(growth.values(), default=0) > GROWTH_BYTES)


def report(findings: Findings, growth: dict[str, int], minutes: float, lost: int) -> str:
    """Return what is printed at the end."""
    lines = [f"{sum(findings.statuses.values())} requests in {minutes:g} minutes: {dict(findings.statuses)}"]
    lines += [f"  {count:7} {reason}" for reason, count in findings.reasons.most_common(20)]
    lines.append(f"decoders lost: {lost}; API restarts: 0" if not findings.bad else f"decoders lost: {lost}")
    for name, samples in findings.memory.items():
        sizes = [
            f"{value / 2**20:.1f}" for value in (samples[:1] + samples[len(samples) // 4 :: max(1, len(samples) // 8)])
        ]
        lines.append(f"own memory of {name}, MiB over time: {', '.join(sizes)}; growth {growth[name] / 2**20:+.1f}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--streams", type=int, default=3, help="requests at the same time")
    parser.add_argument("--seed", type=int, default=None, help="of the mutations; unset: a new one each time, printed")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    sys.stdout.write(f"seed {seed}\n")
    sys.exit(fuzz(options.minutes, options.streams, seed))


if __name__ == "__main__":
    main()
