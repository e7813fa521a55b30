"""``python -m engine.tensorrt_llm.contract_check [--source FOLDER]``: does TensorRT-LLM have what we use of it?

Without an option it looks at the installed package, whose classes it imports; with one it reads a source tree of the
repository and needs no GPU and no package. Every difference from ``contract.yaml`` is one line; the status is 1 then.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.contract.entries import Contract, read_contract
from engine.contract.installed import installed_differences
from engine.contract.report import report
from engine.contract.source import source_differences

if TYPE_CHECKING:
    from collections.abc import Sequence

CONTRACT: Final = Path(__file__).with_name("contract.yaml")


def tensorrt_llm_contract() -> Contract:
    """Return what this package uses of TensorRT-LLM."""
    return read_contract(CONTRACT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, write the differences, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engine.tensorrt_llm.contract_check", description=__doc__)
    parser.add_argument("--source", type=Path, help="source tree of TensorRT-LLM instead of the installed package")
    options = parser.parse_args(arguments)
    contract = tensorrt_llm_contract()
    if options.source is not None:
        checked = [entry for entry in contract.entries if entry.name.startswith("tensorrt_llm")]
        differences = [line for entry in checked for line in source_differences(entry, options.source)]
    else:
        checked = list(contract.entries)
        differences = [line for entry in checked for line in installed_differences(entry)]
    return report(contract.release, len(checked), differences)


if __name__ == "__main__":
    sys.exit(main())
