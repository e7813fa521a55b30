"""What the commands that check a contract write, and with which status they end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_DIFFERENT = 1


def report(release: str, checked: int, differences: Sequence[str]) -> int:
    """Write each difference as a line and a last one with the sum, and return the exit status."""
    sys.stdout.write("".join(f"{line}\n" for line in differences))
    sys.stdout.write(f"{checked} entries of release {release}: {len(differences)} differences\n")
    return EXIT_DIFFERENT if differences else 0
