"""``python -m tests.image``: builds the images as far as this machine can, runs the CPU one, and prints what was seen.

It needs root on a Debian or Ubuntu, and their package mirror and a Python registry, but no container engine.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.image import checks, gpu_targets
from tests.image.air_gap import check_air_gap
from tests.image.builder import Builder, install_tools
from tests.image.container import ROOT, CheckError, Image, Start, running

FOLDER: Final = ROOT / "build" / "image"
RANDOM_UID: Final = 1_234_567
logger = logging.getLogger("image")


def main() -> int:
    """Run everything; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where images and logs are kept")
    parser.add_argument("--cpu-only", action="store_true", help="leave out bundles and the targets for GPUs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        install_tools()
        builder = Builder(options.folder)
        try:
            run_all(builder, cpu_only=options.cpu_only)
        finally:
            builder.remove_containers()
    except CheckError as error:
        logger.error("FAILED %s", error)  # noqa: TRY400 - the message is the report
        return 1
    return 0


def run_all(builder: Builder, *, cpu_only: bool) -> None:
    """Build and check one target after the other."""
    base = _timed("base", builder.make_base)
    arguments = {"CPU_BASE_IMAGE": base}
    image = builder.mount(_timed("build cpu", lambda: builder.build("cpu", arguments)))
    check_image(image)
    check_container(image)
    if cpu_only:
        return
    bundles = builder.mount(_timed("build bundles", lambda: builder.build("bundles", arguments)))
    _say("bundle", checks.bundle(bundles))
    for target, built in gpu_targets.build_all(builder, base).items():
        _say(target, gpu_targets.check_target(target, built, builder.folder / "container.log"))
    _say("old Triton", gpu_targets.check_old_triton(builder, base))


def check_image(image: Image) -> None:
    """Check what is inside."""
    for one in (checks.configuration, checks.files, checks.size, checks.secrets, checks.bill_of_materials):
        _say(one.__name__, one(image))


def check_container(image: Image) -> None:
    """Run the image with nothing but a cache, and check what it does."""
    folder = Path(tempfile.mkdtemp(prefix="g4image-"))
    cache = folder / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    start = Start(RANDOM_UID, volumes={"/opt/nim/.cache": cache})
    try:
        with running(image, start, folder / "log") as container:
            alive, ready = container.wait_until_ready()
            _say("start", f"live after {alive:.1f} s, ready after {ready:.1f} s, as user {RANDOM_UID}")
            for one in (
                checks.answers,
                checks.health,
                checks.processes,
                checks.read_only,
                checks.ports,
                checks.termination,
            ):
                _say(one.__name__, one(container))
        with running(image, Start(RANDOM_UID, arguments=("list-model-profiles",)), folder / "log") as container:
            checks.check(container.wait() == 0, container.output())
            checks.check("MODEL PROFILES" in container.output(), container.output())
            _say("command", "list-model-profiles as the container's command: status 0")
        _say("air gap", check_air_gap(image, folder))
    finally:
        shutil.rmtree(folder)


def _timed(what: str, work: Callable[[], str]) -> str:
    began = time.monotonic()
    result = work()
    _say(what, f"{result} in {time.monotonic() - began:.0f} s")
    return result


def _say(what: str, seen: str) -> None:
    logger.info("ok  %-18s %s", what.replace("_", " "), seen)


if __name__ == "__main__":
    sys.exit(main())
