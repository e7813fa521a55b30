"""``python -m benchmarks.llama_server``: the inference wheel's own HTTP server, the peer of ``benchmarks.enforcement``.

It loads the same GGUF file as the product's engine and gets the model family's published template, by which it
recognises the format of thoughts and calls.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

import xllamacpp


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parallel", type=int, default=4)
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.chat_template = options.template.read_text()
    params.use_jinja = True
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_parallel = options.parallel
    params.n_ctx = 8192 * options.parallel
    params.cpuparams.n_threads = 1
    params.warmup = False
    server = xllamacpp.Server(params)
    signal.sigwait({signal.SIGTERM})
    del server


if __name__ == "__main__":
    main()
