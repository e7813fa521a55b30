"""Checks of what carries the engine: Triton where it was asked for, and engines that somebody else started."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Final

from config.runtime import EngineConnection
from config.settings import Settings
from launcher.commands.doctor.findings import Finding, Findings, doubt, failure, fine
from launcher.errors import LaunchError
from launcher.plan.planner import gib
from launcher.remote import plan_remote
from launcher.triton import find_triton

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - looked at, not written to
ENOUGH_SHARED_MEMORY: Final = 512 * 2**20
"""Requests pass through it, and thirty large pictures in one took 436 MB."""
ANSWER_TIMEOUT_S: Final = 10.0


def check_transport(settings: Settings) -> Findings:
    """See that Triton can carry the engine, if it is to; the embedded server needs nothing."""
    if settings.transport.kind != "triton":
        return
    try:
        yield fine("transport", f"Triton: {find_triton(settings.transport)}")
    except LaunchError as error:
        yield failure("transport", error)
        return
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        free = 0
    if free < ENOUGH_SHARED_MEMORY:
        message = f"{gib(free)} free in {SHARED_MEMORY}, through which Triton gets its requests"
        yield doubt("transport", f"{message}: large pictures may fail", "start the container with --shm-size=1g")


def check_remote(settings: Settings) -> Findings:
    """Ask each engine whether it can generate; one that cannot now may later, so it does not stop a start."""
    try:
        plan = plan_remote(settings)
    except LaunchError as error:
        yield failure("engine", error)
        return
    yield fine("model", f"{plan.names[0]}: {plan.tokenizer}")
    for endpoint in plan.endpoints:
        yield asyncio.run(_ask(endpoint, plan.connection))


async def _ask(endpoint: str, connection: EngineConnection) -> Finding:
    # Imported here: no other command needs gRPC, which takes a while.
    from engine.triton.client import EngineClient  # noqa: PLC0415
    from engine.triton.connection import ConnectionOptions  # noqa: PLC0415

    client = EngineClient([endpoint], ConnectionOptions.of(connection))
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            is_ready = await client.ready()
    except TimeoutError:
        is_ready = False
    finally:
        await client.close()
    if is_ready:
        return fine("engine", f"{endpoint} can generate")
    remedy = "start it, or see to the network, its name and TLS; the server is ready with any one engine"
    return doubt("engine", f"{endpoint} does not answer, or has not loaded its model", remedy)
