"""Reads many systems with the product's own reader, each in a fork: Python and nvidia-ml-py are loaded once.

Run as a script with the folders of laid out libraries as arguments; it writes one JSON list of messages per line.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

import pynvml

from launcher.hardware import nvidia


def main() -> None:
    """Read each system in turn, in the order given."""
    for folder in sys.argv[1:]:
        child = os.fork()
        if child == 0:
            # nvidia-ml-py loads the library by its bare name, which the loader looks up where it did when we started.
            library = Path(folder) / "libnvidia-ml.so.1"
            pynvml.nvmlLib = ctypes.CDLL(str(library)) if library.stat().st_size else None
            sys.stdout.write(json.dumps(list(nvidia.messages())) + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
