"""Asks NVIDIA's driver about its GPUs, in a process of its own, and never waits for it without end.

A driver in trouble can hang a call in the kernel, where no signal reaches it, or crash the process. Neither must happen
to the launcher, so ``nvidia`` runs as a child that tells line by line what it has seen. A child that is silent
for too long is killed and, if it cannot die, left behind; what it has told until then still counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any, Final

from config.environment import bare_environment
from launcher.hardware.gpu_messages import CRASHED, HUNG, NO_PACKAGE, Scan, assemble

TIMEOUT_S: Final = 30.0
"""Silence after which the driver counts as hung. Without its persistence daemon a GPU takes seconds to wake up."""
_END_TIMEOUT_S: Final = 1.0


def scan_gpus(timeout_s: float = TIMEOUT_S) -> Scan:
    """Ask the driver about all GPUs; faults of any kind are part of the answer.

    Args:
        timeout_s: longest silence; the whole scan takes at most this much per GPU, and usually 0.1 s.
    """
    ours, theirs = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher.hardware.nvidia"],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            env=bare_environment(),
        )
    except OSError:
        os.close(ours)
        return Scan(error=CRASHED)  # No process to be had: too many, or too little memory.
    finally:
        os.close(theirs)
    try:
        messages = list(_messages(_lines(ours, timeout_s)))
    finally:
        os.close(ours)
    return assemble(messages, _end(child))


def _messages(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            continue  # Something else that was loaded into the process likes to talk.
        if isinstance(message, dict):
            yield message


def _lines(file: int, timeout_s: float) -> Iterator[bytes]:
    """Yield whole lines until the other side closes or says nothing new in time."""
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        deadline = time.monotonic() + timeout_s
        while selector.select(max(deadline - time.monotonic(), 0)):
            data = os.read(file, 65536)
            if not data:
                return
            *lines, text = (text + data).split(b"\n")
            yield from lines
            deadline = time.monotonic() + timeout_s


def _end(child: subprocess.Popen[bytes]) -> str:
    """Make sure that the child is gone, or given up, and tell how it ended: an error, or nothing."""
    try:
        status = child.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        # One that is stuck in the kernel dies when the driver lets go of it, and costs nothing until then.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_END_TIMEOUT_S)
        return HUNG
    if status == 0:
        return ""
    return CRASHED if find_spec("pynvml") else NO_PACKAGE
