"""``python -m benchmarks.image_engine``: the engine of ``benchmarks.scripted_engine``, which takes pictures, too."""

from __future__ import annotations

import argparse
import dataclasses

import uvloop

from benchmarks.scripted_engine import SteppedCore, serve
from engine.core import EngineLimits


class SeeingCore(SteppedCore):
    """A scripted core that claims a vision tower."""

    def limits(self) -> EngineLimits:
        """Return the same limits, and that pictures are welcome."""
        return dataclasses.replace(super().limits(), vision=True)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True, help="gRPC address to listen at")
    uvloop.run(serve(parser.parse_args().endpoint, SeeingCore((1,), 0.001)))


if __name__ == "__main__":
    main()
