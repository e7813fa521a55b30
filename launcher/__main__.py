"""``python -m launcher`` and the console script ``gemma4-nim``."""

from __future__ import annotations

from launcher.cli import app


def main() -> None:
    """Run the command line; the process ends with a status of ``launcher.errors.ExitCode``."""
    app()


if __name__ == "__main__":
    main()
