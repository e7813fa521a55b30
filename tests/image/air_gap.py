"""The air gap with the real image: a folder is exported, carried, and served by a container that may only read it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.fakes import console
from tests.fakes.file_server import file_server
from tests.fakes.manifests import file_entry, write_manifest
from tests.image.checks import check
from tests.image.container import ROOT, Image, Start, running

DEMO: Final = ROOT / "demo" / "checkpoints" / "demo-moe"
FILES: Final = ("model.gguf", "mmproj.gguf", "tokenizer.json")
PROFILE: Final = "llama_cpp-26b-a4b-q4_k_m-tp1-pp1-latency"
UID: Final = 1_234_567


def check_air_gap(image: Image, folder: Path) -> str:
    """Export a profile whose files are the demo model's, and serve it offline from a volume that cannot be written."""
    disk = folder / "disk"
    with file_server(DEMO) as server:
        write_manifest(folder / "manifest.yaml", ({}, {name: file_entry(server.url, DEMO / name) for name in FILES}))
        exported = console.run(
            "gemma4-nim", "airgap", "export", str(disk), "--profile", PROFILE,
            variables={"NIM_MANIFEST_PATH": str(folder / "manifest.yaml")},
        )  # fmt: skip
    check(exported.returncode == 0, exported.stderr)
    checked = console.run("gemma4-nim", "airgap", "check", str(disk))
    check(checked.returncode == 0, checked.stderr)
    shutil.copy(disk / "model_manifest.yaml", disk / "models")
    subprocess.run(["chmod", "-R", "a+rX,a-w", str(disk / "models")], check=True)
    folder.chmod(0o755)
    settings = {
        "NIM_OFFLINE": "1", "NIM_MODEL_PROFILE": PROFILE,
        "NIM_MANIFEST_PATH": "/opt/nim/.cache/model_manifest.yaml",
        # The small files stand for those of a large model, which might not fit.
        "NIM_RELAX_MEM_CONSTRAINTS": "1",
    }  # fmt: skip
    start = Start(UID, volumes={"/opt/nim/.cache": disk / "models"}, variables=settings)
    with running(image, start, folder / "air-gap.log") as container:
        container.wait_until_ready()
        check(container.terminate() == 0, container.output()[-2000:])
    return "exported, checked, and served offline by a container that could not write the volume"
