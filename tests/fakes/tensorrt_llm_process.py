"""``python -m tests.fakes.tensorrt_llm_process --runtime FILE``: the engine process on the TensorRT-LLM stand-in.

With ``--die-after N`` the stand-in loses its workers after N responses.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from engine.__main__ import main
from engine.tensorrt_llm.contract_check import tensorrt_llm_contract
from tests.fakes.tensorrt_llm_contract import package
from tests.fakes.tensorrt_llm_engine import StandInEngine


def run(arguments: list[str]) -> int:
    """Put the stand-in in the place of the package, run the engine process, and return its status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--die-after", type=int)
    options, others = parser.parse_known_args(arguments)

    def start(given: dict[str, Any], classes: Any) -> StandInEngine:
        engine = StandInEngine(given, classes)
        engine.responses_left = options.die_after
        return engine

    sys.modules.update(package(tensorrt_llm_contract(), start))
    return main(others)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
