"""Builds the targets for GPUs on stand-ins for their base images, and checks what does not need the engine itself.

Every step of the Dockerfile is run: Triton's files and libraries are moved, packages are chosen and installed, the
bill of materials is written. What an engine does, only the real base image can show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.image import checks
from tests.image.builder import Builder
from tests.image.container import CheckError, Image, Start, running

STAND_INS: Final = Path(__file__).with_name("stand_ins")
BASES: Final = {"vllm": "VLLM_BASE_IMAGE", "tensorrt-llm": "TENSORRT_LLM_BASE_IMAGE"}
UID: Final = 1_234_567


def build_all(builder: Builder, base: str) -> dict[str, Image]:
    """Build both targets and return them by name."""
    engine = builder.build("engine", {"CPU_BASE_IMAGE": base}, STAND_INS)
    triton = builder.build("triton", {"CPU_BASE_IMAGE": base}, STAND_INS)
    arguments = {"CPU_BASE_IMAGE": base, "TRITON_IMAGE": triton}
    stages = {"installed": builder.build("installed", {"CPU_BASE_IMAGE": base})}
    return {
        target: builder.mount(builder.build(target, {**arguments, argument: engine}, stages=stages))
        for target, argument in BASES.items()
    }


def check_old_triton(builder: Builder, base: str) -> str:
    """Check that a release of Triton with known holes ends the build."""
    engine = builder.build("engine", {"CPU_BASE_IMAGE": base}, STAND_INS)
    old = builder.build("old-triton", {"CPU_BASE_IMAGE": base}, STAND_INS)
    try:
        builder.build("vllm", {"CPU_BASE_IMAGE": base, "VLLM_BASE_IMAGE": engine, "TRITON_IMAGE": old})
    except CheckError as error:
        checks.check("older than 26.08" in str(error), str(error))
        return "Triton 25.06 is refused"
    raise CheckError("Triton 25.06 was taken")


def check_target(target: str, image: Image, log: Path) -> str:
    """Check one of them, and that its launcher runs beside what the base brought."""
    for one in (checks.configuration, checks.files, checks.secrets):
        one(image)
    engine = target.replace("-", "_")
    start = Start(UID, arguments=("list-model-profiles",))
    with running(image, start, log) as container:
        checks.check(container.wait() == 0, container.output()[-2000:])
        (listed,) = [line for line in container.output().splitlines() if line.startswith("- Engines in this image")]
        checks.check({"llama_cpp", engine} <= set(listed.replace(",", "").split()), listed)
    with running(image, Start(UID, arguments=("tritonserver", "--version")), log) as container:
        checks.check(container.wait() == 0, container.output()[-2000:])
    purls = (image.root / "opt/nim/sbom.spdx.json").read_text()
    checks.check("pkg:generic/tritonserver@" in purls, "the SBOM lacks Triton")
    checks.check(f"pkg:pypi/{engine.replace('_', '-')}@" in purls, "the SBOM lacks the engine")
    return "every step was run on a stand-in; launcher, Triton's libraries, SBOM and configuration as promised"
