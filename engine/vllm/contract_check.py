"""``python -m engine.vllm.contract_check``: does the installed vLLM have what we use of it?

Every difference from ``contract.yaml`` is one line; the status is 1 then. Reading and comparing are shared with the
other engine that is held to such a file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from engine.tensorrt_llm.contract import Contract, read_contract
from engine.tensorrt_llm.contract_check import EXIT_DIFFERENT, installed_differences

CONTRACT: Final = Path(__file__).with_name("contract.yaml")


def vllm_contract() -> Contract:
    """Return what this package uses of vLLM."""
    return read_contract(CONTRACT)


def main() -> int:
    """Compare, write the differences, and return the exit status."""
    contract = vllm_contract()
    differences = [line for entry in contract.entries for line in installed_differences(entry)]
    sys.stdout.write("".join(f"{line}\n" for line in differences))
    sys.stdout.write(f"{len(contract.entries)} entries of release {contract.release}: {len(differences)} differences\n")
    return EXIT_DIFFERENT if differences else 0


if __name__ == "__main__":
    sys.exit(main())
