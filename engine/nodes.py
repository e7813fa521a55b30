"""One engine over several machines: a process's place among them, and how all notice that one has gone.

The process on the first machine, the leader, is an engine like any other. Those on the others, its workers, serve
nobody: they load their share of the model and compute what the leader asks for. vLLM waits for a lost machine for ever,
so each worker holds a connection to the leader on which nothing is said after its rank, and when one closes both sides
end. Whoever started the processes starts all of them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import signal
import socket
import sys
import threading
import time
from multiprocessing.connection import Pipe, wait
from typing import TYPE_CHECKING, Final

from config.runtime import EngineCluster, EngineRuntime
from engine.cores import load_worker
from engine.errors import EngineError, EngineLoadError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Coroutine, Iterator

    from engine.vllm.worker import VllmWorker

logger = logging.getLogger("engine")

JOIN_PAUSE_S: Final = 1.0
JOIN_TIMEOUT_S: Final = 600.0
"""How long a worker looks for its leader, which may have to be scheduled and to fetch its image first."""
KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A machine that lost its power says nothing: seconds until the kernel asks, between questions, and how many."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a process be told its place on its command line, so that all machines can share one file."""
    parser.add_argument("--nodes", type=int, default=1, help="machines that share one engine")
    parser.add_argument("--node-rank", type=int, default=0, help="which of them this is; 0 serves the requests")
    parser.add_argument(
        "--leader", default="", metavar="HOST:PORT", help="rank 0; this port and the next have to be free there"
    )


def placed(runtime: EngineRuntime, options: argparse.Namespace) -> EngineRuntime:
    """Return the runtime with the place that the command line says.

    Raises:
        ValueError: the place does not exist, or the runtime's core cannot be spread over machines.
    """
    if options.nodes == 1 and options.node_rank == 0:
        return runtime
    cluster = EngineCluster(nodes=options.nodes, rank=options.node_rank, leader=options.leader)
    return EngineRuntime.model_validate(runtime.model_dump() | {"cluster": cluster.model_dump()})


async def beside_workers(core: Coroutine[None, None, None], cluster: EngineCluster | None) -> None:
    """Run a leader's core, and end it when a worker has gone; without a cluster just run it.

    Raises:
        EngineError: a worker has gone, their port cannot be opened, or the core has failed.
    """
    if cluster is None:
        await core
        return
    tasks = [asyncio.ensure_future(core), asyncio.ensure_future(_lost_worker(cluster))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


async def _lost_worker(cluster: EngineCluster) -> None:
    """Take the workers' connections; returns only by raising, when one of them is closed."""
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    ranks = {b"%d" % rank for rank in range(1, cluster.nodes)}

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _keep_alive(writer.get_extra_info("socket"))
        # A stranger may send anything, and either side may break the connection off.
        rank = b""
        with contextlib.suppress(ValueError, OSError):
            rank = (await reader.readline()).strip()
        if rank in ranks:
            logger.info("node %s of %d has joined", rank.decode(), cluster.nodes)
            with contextlib.suppress(OSError):
                await reader.read(1)
            if not lost.done():
                lost.set_result(rank.decode())
        writer.close()

    try:
        server = await asyncio.start_server(joined, None, cluster.watch_port)
    except OSError as error:
        message = f"cannot listen for the other nodes at port {cluster.watch_port}: {error}"
        raise EngineLoadError(message) from error
    async with server:
        message = f"node {await lost} of {cluster.nodes} has ended"
    raise EngineError(message)


def is_worker(runtime: EngineRuntime) -> bool:
    """Tell whether the leader is another process."""
    return runtime.cluster is not None and runtime.cluster.rank > 0


def work(runtime: EngineRuntime) -> None:
    """Compute for the leader until a signal arrives.

    Raises:
        EngineError: the model cannot be loaded, the leader has gone, or one of vLLM's processes here has.
        SystemExit: with status 0, at a signal.
    """
    cluster = runtime.cluster
    if cluster is None:
        message = "a worker has to know its leader"
        raise EngineError(message)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Process 1 of a container has no default action for signals.
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        with _joined(cluster) as leader:
            worker = _loaded(runtime, leader)
            logger.info("node %d of %d is ready", cluster.rank, cluster.nodes)
            if leader in wait([leader, *worker.sentinels()]):
                raise EngineError(_gone(cluster))
            message = "one of vLLM's processes has ended"
            raise EngineError(message)
    finally:
        # Nothing in vLLM's processes is worth waiting for, and some of them ignore a polite request.
        for process in multiprocessing.active_children():
            process.kill()


def _gone(cluster: EngineCluster) -> str:
    return f"the leader at {cluster.leader} has ended"


@contextlib.contextmanager
def _joined(cluster: EngineCluster) -> Iterator[socket.socket]:
    """Open the connection to the leader, which may start later than this process."""
    logger.info("node %d of %d looks for %s", cluster.rank, cluster.nodes, cluster.leader)
    end = time.monotonic() + JOIN_TIMEOUT_S
    while True:
        try:
            connection = socket.create_connection((cluster.host, cluster.watch_port), JOIN_TIMEOUT_S)
            break
        except OSError as error:
            if time.monotonic() > end:
                message = f"the leader at {cluster.leader} does not answer: {error}"
                raise EngineLoadError(message) from error
        time.sleep(JOIN_PAUSE_S)
    with connection:
        connection.settimeout(None)
        _keep_alive(connection)
        connection.sendall(b"%d\n" % cluster.rank)
        yield connection


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _loaded(runtime: EngineRuntime, leader: socket.socket) -> VllmWorker:
    """Load in a daemon thread, which takes minutes, and give up at once when the leader does."""
    ours, theirs = Pipe(duplex=False)
    found: list[VllmWorker] = []
    errors: list[BaseException] = []

    def load() -> None:
        try:
            found.append(load_worker(runtime))
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: it is raised again by whoever waits
            errors.append(error)
        finally:
            theirs.close()

    threading.Thread(target=load, name="engine-load", daemon=True).start()
    if leader in wait([leader, ours]) and runtime.cluster is not None:
        raise EngineError(_gone(runtime.cluster))
    for error in errors:
        raise error
    return found[0]
