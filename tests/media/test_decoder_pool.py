"""Decoder processes: what they may do, how they are replaced, and that only the picture that broke one is refused."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import PIL.Image
import pytest
import requests

import api.media.decoder_pool
from api.media.decode import decode_image
from api.media.decoder import DecoderLimits, DecoderLostError, _map
from api.media.decoder_pool import DecoderBusyError, DecoderPool, DecoderUnavailableError
from api.media.decoder_wire import Outcome, Reply
from api.media.encoded import EncodedPicture
from api.media.errors import DecodeError
from api.media.shared_memory import KEPT_BYTES, PictureFile, open_result
from api.media.size import Budget
from tests.api.conftest import ScriptedServer
from tests.fakes.corpus import photo
from tests.fakes.measuring import best
from tests.fakes.pictures import by_url, data_url, encode, plain
from tests.fakes.processes import DEADLINE_S, wait_until

SMALL = Budget(70)
FINE = EncodedPicture(plain())
LIMITS = DecoderLimits(processes=2, timeout_s=60, max_waiting=4)


@asynccontextmanager
async def open_pool(limits: DecoderLimits = LIMITS) -> AsyncIterator[DecoderPool]:
    """Give a pool, and check that none of its processes outlives it."""
    pool = DecoderPool(limits)
    try:
        yield pool
    finally:
        pids = pool.pids
        await pool.close()
        assert not [pid for pid in pids if is_running(pid)]


def is_running(pid: int) -> bool:
    """Tell whether a process exists."""
    return Path(f"/proc/{pid}").exists()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine."""
    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(64, 64), (1200, 900)])
def test_result_is_that_of_decoding_here(size: tuple[int, int]) -> None:
    """Small pictures, which travel inline, large ones, and base64 of both come back as decoded in this process."""
    data = encode(photo(size))
    text = base64.b64encode(data).decode()
    pictures = (
        EncodedPicture(data),
        EncodedPicture(text, is_base64=True),
        EncodedPicture(f"data:;base64,{text}", is_base64=True, start=13),
        EncodedPicture(text.encode(), is_base64=True),
        EncodedPicture(b"xyz" + data, start=3),
    )

    async def scenario() -> None:
        async with open_pool() as pool:
            for budget in (Budget(70), Budget(1120), Budget(1120, lossless=True)):
                wanted = decode_image(data, budget)
                for number, picture in enumerate(pictures):
                    assert await pool.decode(picture, budget) == wanted, (budget, number)

    run(scenario)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (EncodedPicture(b"hello"), "not a JPEG"),
        (EncodedPicture("aGVsbG8=", is_base64=True), "not a JPEG"),
        (EncodedPicture("!!!!", is_base64=True), "base64"),
        (EncodedPicture("\u00e9" * 8, is_base64=True), "base64"),
        (EncodedPicture(plain()[:-30] + b"x" * 300_000), "damaged"),
        (EncodedPicture(plain() + bytes(2_000_000)), "larger than 1000000 bytes"),
        (EncodedPicture(base64.b64encode(bytes(2_000_000)), is_base64=True), "larger than 1000000 bytes"),
    ],
)
def test_refusals_come_back_and_the_decoder_stays(picture: EncodedPicture, reason: str) -> None:
    """A picture that is at fault is refused with its reason, and the same process takes the next one."""

    async def scenario() -> None:
        async with open_pool(DecoderLimits(processes=1, max_image_bytes=1_000_000)) as pool:
            await pool.decode(FINE, SMALL)
            before = pool.pids
            with pytest.raises(DecodeError, match=reason):
                await pool.decode(picture, SMALL)
            await pool.decode(FINE, SMALL)
            assert pool.pids == before

    run(scenario)


def test_too_little_memory_is_a_refusal() -> None:
    """A picture that does not fit the memory limit is refused; the decoder survives and takes the next one."""
    large = EncodedPicture(encode(PIL.Image.new("RGBA", (8000, 8000), (1, 2, 3, 4)), compress_level=1))

    async def scenario() -> None:
        async with open_pool(DecoderLimits(processes=1, memory_bytes=400 * 1024**2, timeout_s=60)) as pool:
            await pool.decode(FINE, SMALL)
            before = pool.pids
            with pytest.raises(DecodeError, match="too large"):
                await pool.decode(large, SMALL)
            await pool.decode(FINE, SMALL)
            assert pool.pids == before

    run(scenario)


def test_hanging_decoder_is_killed_and_replaced() -> None:
    """A decoder that does not answer in time is killed; its picture is refused, and others go on."""

    async def scenario() -> None:
        async with open_pool() as pool:
            await pool.decode(FINE, SMALL)
            (stuck,) = pool.pids
            # Only the one that hangs has little time: others must not fail because the machine is busy.
            pool._idle[0]._limits = DecoderLimits(timeout_s=1)
            os.kill(stuck, signal.SIGSTOP)
            hanging = asyncio.create_task(pool.decode(FINE, SMALL))
            await wait_for(lambda: not pool._idle)
            other = await pool.decode(FINE, SMALL)
            with pytest.raises(DecodeError, match="longer than 1 s"):
                await hanging
            assert other.width
            assert stuck not in pool.pids
            assert not is_running(stuck)
            await pool.decode(FINE, SMALL)

    run(scenario)


async def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for a condition without blocking the loop."""
    await asyncio.to_thread(wait_until, condition)


def test_dying_decoder_takes_only_its_own_picture() -> None:
    """A decoder that dies at work fails one request; one that died idle fails none."""

    async def scenario() -> None:
        async with open_pool() as pool:
            await pool.decode(FINE, SMALL)
            (victim,) = pool.pids
            os.kill(victim, signal.SIGSTOP)
            doomed = asyncio.create_task(pool.decode(FINE, SMALL))
            await wait_for(lambda: not pool._idle)
            await pool.decode(FINE, SMALL)
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(DecodeError, match="cannot be decoded"):
                await doomed
            (idle,) = pool.pids
            os.kill(idle, signal.SIGKILL)
            await wait_for(lambda: not pool._idle[0].is_alive)
            await pool.decode(FINE, SMALL)
            assert idle not in pool.pids

    run(scenario)


def test_time_of_one_picture_is_limited_by_the_kernel_too() -> None:
    """A picture that keeps a decoder computing ends by its CPU limit or the deadline, whichever comes first."""
    slow = encode(PIL.Image.new("RGB", (6000, 6000), "teal"), "JPEG", progressive=True)
    scan = slow[slow.rindex(b"\xff\xda") : -2]

    async def scenario() -> None:
        async with open_pool(DecoderLimits(processes=1, timeout_s=1)) as pool:
            with pytest.raises(DecodeError, match=r"longer than|cannot be decoded"):
                await pool.decode(EncodedPicture(slow[:-2] + scan * 180 + b"\xff\xd9"), Budget(1120))
            pool._limits = LIMITS  # the next decoder has time, however busy the machine is
            await pool.decode(FINE, SMALL)

    run(scenario)


def test_queue_is_limited() -> None:
    """When as many pictures wait as may, one more is told to come back."""

    async def scenario() -> None:
        async with open_pool(DecoderLimits(processes=1, max_waiting=2, timeout_s=60)) as pool:
            tasks = [asyncio.create_task(pool.decode(FINE, SMALL)) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(DecoderBusyError) as caught:
                await pool.decode(FINE, SMALL)
            assert caught.value.status == 429
            assert caught.value.headers["retry-after"]
            for image in await asyncio.gather(*tasks):
                assert image.width

    run(scenario)


def test_client_that_goes_away_costs_no_decoder() -> None:
    """Cancelling a request leaves its decoder to finish and to be used again."""

    async def scenario() -> None:
        async with open_pool(DecoderLimits(processes=1)) as pool:
            await pool.decode(FINE, SMALL)
            before = pool.pids
            task = asyncio.create_task(pool.decode(EncodedPicture(encode(photo((1500, 1500)))), SMALL))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await pool.decode(FINE, SMALL)
            assert pool.pids == before

    run(scenario)


def test_old_decoders_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its share of pictures a decoder makes room for a new one."""
    monkeypatch.setattr(api.media.decoder_pool, "MAX_PICTURES", 2)

    async def scenario() -> None:
        async with open_pool(DecoderLimits(processes=1)) as pool:
            await pool.decode(FINE, SMALL)
            (first,) = pool.pids
            await pool.decode(FINE, SMALL)
            assert not is_running(first)
            await pool.decode(FINE, SMALL)
            assert first not in pool.pids

    run(scenario)


def test_machine_without_processes_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no decoder can be started, the fault is the server's and passing."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")

    async def scenario() -> None:
        async with open_pool() as pool:
            pool.warm()
            with pytest.raises(DecoderUnavailableError) as caught:
                await pool.decode(FINE, SMALL)
            assert caught.value.status == 503

    run(scenario)


def test_decoder_is_confined() -> None:
    """The kernel limits a decoder's memory, files and system calls, and it is told nothing of our environment."""

    async def scenario() -> None:
        async with open_pool(DecoderLimits(processes=1, memory_bytes=700 * 1024**2)) as pool:
            await pool.decode(FINE, SMALL)
            folder = Path(f"/proc/{pool.pids[0]}")
            limits = (folder / "limits").read_text()
            assert str(700 * 1024**2) in limits.split("Max address space")[1].splitlines()[0]
            assert limits.split("Max core file size")[1].split()[0] == "0"
            assert limits.split("Max open files")[1].split()[0] == "32"
            status = (folder / "status").read_text()
            assert "Seccomp:\t2" in status
            assert "NoNewPrivs:\t1" in status
            names = {line.partition(b"=")[0] for line in (folder / "environ").read_bytes().split(b"\0") if line}
            assert names <= {
                b"PYTHONPATH", b"PYTHONDONTWRITEBYTECODE", b"LD_LIBRARY_PATH", b"PYTHONHOME", b"GLIBC_TUNABLES",
            }  # fmt: skip
            assert len(list((folder / "fd").iterdir())) <= 5

    run(scenario)


PROBE = """
import os, socket, threading
from api.media.sandbox import confine
assert confine()
def refused(call, *arguments):
    try:
        call(*arguments)
    except PermissionError:
        return True
    return False
assert refused(socket.socket)
assert refused(open, "/etc/hostname")
assert refused(os.fork)
assert refused(os.execv, "/bin/true", ["true"])
assert refused(os.kill, os.getppid(), 0)
assert refused(os.unlink, "/nonexistent")
thread = threading.Thread(target=len, args=("",))
thread.start()
thread.join()
assert os.memfd_create("x") > 0
os.write(1, b"confined")
"""


def test_forbidden_calls_are_refused() -> None:
    """Confined code opens no socket and no file, starts no program and signals nobody; threads and memory remain."""
    result = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=60, check=False)

    assert result.stdout == b"confined", result.stderr


def test_api_process_never_loads_pillow(api: ScriptedServer) -> None:
    """No part of the API process can decode a picture: the library is not even loaded by one that was given some."""
    assert api.process.process is not None
    # No other test has sent this one, so it is in no cache.
    part = by_url(data_url(encode(photo((101, 67)))))
    assert api.post({"messages": [{"role": "user", "content": [part]}]}).status_code == 200
    (decoder, *_) = api.process.children("api.media.decoder_process")
    server = api.process.process.pid
    loaded = [Path(f"/proc/{pid}/maps").read_text().count("/PIL/_imaging.") for pid in (decoder, server)]

    assert loaded[0]
    assert not loaded[1]


@pytest.mark.parametrize(("width", "height"), [(0, 0), (50, 48), (48, 48 * 71), (2**31, 48), (48 * 300, 48 * 300)])
def test_lies_of_a_decoder_are_noticed(width: int, height: int) -> None:
    """A size that the budget does not allow counts as a broken decoder, not as a picture."""
    with open_result() as file, pytest.raises(DecoderLostError):
        _map(file, Reply(Outcome.DONE, width, height), SMALL)


def test_shared_memory_cannot_be_cut_short() -> None:
    """The other side can neither shrink nor grow a result under the reader's hands."""
    with open_result() as file:
        for size in (0, 1 << 30):
            with pytest.raises(PermissionError):
                os.ftruncate(file, size)


def test_file_for_pictures_is_used_again() -> None:
    """A decoder's file holds just the picture that it was filled with last, and keeps little of a large one."""

    async def scenario() -> None:
        source = PictureFile()
        for data in (b"a" * 3_000_000, b"b" * 100, b"c" * (KEPT_BYTES + 1)):
            file = await source.fill(EncodedPicture(b"xy" + data, start=2))
            assert os.pread(file, len(data) + 1, 0) == data
        source.shrink()
        assert os.fstat(file).st_size == KEPT_BYTES
        source.close()
        source.close()
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(file)

    run(scenario)


def test_file_is_not_closed_under_its_writer() -> None:
    """When nobody waits for a picture any more, its file stays open until it is written: the number is not reused."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        source, gate = PictureFile(), threading.Event()
        loop.set_default_executor(ThreadPoolExecutor(1))
        blocked = loop.run_in_executor(None, gate.wait)
        filling = asyncio.create_task(source.fill(EncodedPicture(b"a" * 3_000_000)))
        await asyncio.sleep(0)
        assert source._file is not None
        file = source._file
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        source.close()
        assert os.fstat(file).st_size == 3_000_000
        gate.set()
        await blocked
        assert source._writing is not None
        await source._writing
        assert source._writing.done()
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(file)

    run(scenario)


def test_route_survives_its_decoders(api: ScriptedServer) -> None:
    """Killing every decoder of a running server fails no later request and restarts nothing but decoders."""
    assert api.process.process is not None
    part = by_url(data_url(plain()), detail="low")
    body = {"messages": [{"role": "user", "content": [part]}]}
    assert api.post(body).status_code == 200
    victims = api.process.children("api.media.decoder_process")

    for pid in victims:
        os.kill(pid, signal.SIGKILL)

    assert victims
    assert api.post(body).status_code == 200
    assert api.post({"messages": [{"role": "user", "content": [by_url(data_url(b"BM"))]}]}).status_code == 400
    assert api.process.process.poll() is None


def test_decoding_does_not_hold_up_other_requests(api: ScriptedServer) -> None:
    """While large pictures are decoded the server answers others."""
    qualities = itertools.count(40)

    def share() -> float:
        """Return what part of twenty answers to others came while pictures were decoded that nobody has sent before."""
        part = by_url(data_url(encode(photo((2400, 1800)), "JPEG", quality=next(qualities))))
        others = 0
        with ThreadPoolExecutor(1) as executor:
            answer = executor.submit(api.post, {"messages": [{"role": "user", "content": [part] * 4}]})
            while not answer.done():
                others += requests.get(f"{api.base_url}/v1/health/live", timeout=60).ok
        assert answer.result().status_code == 200
        return 20 / max(others, 1)

    # Counted, not timed: on a busy machine everything is slow. Decoding in the event loop would let few come between.
    assert best(share, below=1.001) <= 1
