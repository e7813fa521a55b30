"""``python -m engine.vllm.contract_check``: does the installed vLLM have what we use of it?

Every difference from ``contract.yaml`` is one line; the status is 1 then.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from engine.contract.entries import Contract, read_contract
from engine.contract.installed import installed_differences
from engine.contract.report import report

CONTRACT: Final = Path(__file__).with_name("contract.yaml")


def vllm_contract() -> Contract:
    """Return what this package uses of vLLM."""
    return read_contract(CONTRACT)


def main() -> int:
    """Compare, write the differences, and return the exit status."""
    contract = vllm_contract()
    differences = [line for entry in contract.entries for line in installed_differences(entry)]
    return report(contract.release, len(contract.entries), differences)


if __name__ == "__main__":
    sys.exit(main())
