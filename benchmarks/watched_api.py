"""``python -m benchmarks.watched_api --runtime FILE --out FILE``: the API process with a watch on its event loop.

Every millisecond a timer falls due; how late it is served is how long any other client may have to wait. The CPU time
that the loop's thread used in between tells what of that was its own work and not the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import api.__main__

_STEP_S: Final = 0.001


class Watch:
    """Measures the loop that it runs in, between two signals of a file's existence."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._late: list[float] = []
        self._own: list[float] = []

    async def run(self) -> None:
        """Measure until cancelled, and write what was measured since the file was last removed."""
        # The loop's own clock has steps of a millisecond.
        used = time.thread_time()
        due = time.perf_counter() + _STEP_S
        while True:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            now, own = time.perf_counter(), time.thread_time()
            self._late.append(now - due)
            self._own.append(own - used)
            used, due = own, now + _STEP_S
            if len(self._late) % 500 == 0:
                self._exchange()
                used, due = time.thread_time(), time.perf_counter() + _STEP_S

    def _exchange(self) -> None:
        """Start anew when the file has been removed, else write it."""
        if not self._out.exists():
            self._late.clear()
            self._own.clear()
        self._out.write_text(json.dumps({"late": sorted(self._late)[-2000:], "own": sorted(self._own)[-2000:],
                                         "count": len(self._late)}))  # fmt: skip


def main() -> None:
    """Serve as ``python -m api`` does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", required=True, help="JSON file as the launcher writes it")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for what was measured")
    options = parser.parse_args()
    serve: Callable[..., Coroutine[Any, Any, None]] = api.__main__._serve  # noqa: SLF001 - the one place to step in

    async def watched(*arguments: Any) -> None:
        watch = asyncio.ensure_future(Watch(options.out).run())
        try:
            await serve(*arguments)
        finally:
            watch.cancel()

    api.__main__._serve = watched  # type: ignore[assignment] # noqa: SLF001
    sys.exit(api.__main__.main(["--runtime", options.runtime]))


if __name__ == "__main__":
    main()
