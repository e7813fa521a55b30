"""Builds images without a container engine: a Debian base by debootstrap, the Dockerfile by buildah.

The base stands in for the official Debian image, which needs a registry that not every machine reaches: same release,
same packages, no documentation. Everything lies in ``build/image``; a base that is there is used again.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.image.container import ROOT, CheckError, Image

RELEASE: Final = "trixie"
BASE: Final = f"localhost/debian:{RELEASE}-slim"
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
MOUNTED_CERTIFICATES: Final = "/run/certificates.crt"
"""This machine's authorities, for a registry behind a proxy with a certificate of its own."""
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_IN_SLIM: Final = ("usr/share/locale", "usr/share/man", "usr/share/info", "var/lib/apt/lists", "var/cache/apt")
"""What the official slim image leaves out; of ``usr/share/doc`` it keeps the licences."""
TOOLS: Final = {
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "nsenter": "util-linux",
    "curl": "curl",
    "ip": "iproute2",
}
REGISTRY: Final = ("index-url", "extra-index-url", "trusted-host", "proxy")


class Builder:
    """buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "build.log"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def make_base(self) -> str:
        """Make the stand-in for Debian's image, unless it is there, and return its name."""
        if not self._call("images", "--quiet", "--filter", f"reference={BASE}").strip():
            system = self.folder / "debian"
            shutil.rmtree(system, ignore_errors=True)
            self._run(["debootstrap", "--variant=minbase", RELEASE, str(system)])
            for name in NOT_IN_SLIM:
                shutil.rmtree(system / name)
                (system / name).mkdir()
            for path in (system / "usr/share/doc").rglob("*"):
                if path.is_file() and path.name != "copyright":
                    path.unlink()
            self.commit(BASE, system)
            shutil.rmtree(system)
        return BASE

    def commit(self, name: str, content: Path, base: str = "scratch") -> None:
        """Make an image of a folder, laid over ``base``."""
        container = self._from(base)
        self._call("add", "--quiet", container, str(content), "/")
        if base == "scratch":
            self._call("config", "--env", f"PATH={PATH}", "--cmd", "bash", container)
        self._call("commit", "--quiet", "--rm", "--format", "docker", *self._policy(), container, name)

    def build(
        self, target: str, arguments: dict[str, str], context: Path = ROOT, stages: dict[str, str] | None = None
    ) -> str:
        """Build a target of the Dockerfile in a folder and return the image's name.

        ``stages`` are images that stand for stages of the same name: older versions of buildah mount a stage that
        they took from their cache without its last layers.
        """
        name = f"localhost/gemma4-nim{'' if context == ROOT else '-stand-in'}:{target}"
        given = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        for stage, image in (stages or {}).items():
            given += ["--build-context", f"{stage}=container-image://{image}"]
        trust = ["--volume", f"{CERTIFICATES}:{MOUNTED_CERTIFICATES}:ro"] if CERTIFICATES.is_file() else []
        self._run(
            [
                *self._buildah(), "build", "--isolation", "chroot", "--network", "host", "--format", "docker",
                "--layers",
                *self._policy(), *trust, "--secret", f"id=pip.conf,src={self._registry()}", *given,
                "--target", target, "--tag", name, str(context),
            ]
        )  # fmt: skip
        return name

    def mount(self, name: str) -> Image:
        """Mount an image and return what it says of itself."""
        container = self._from(name)
        record: dict[str, Any] = json.loads(self._call("inspect", "--type", "image", name))
        docker = record["Docker"]
        history = tuple(layer.get("created_by", "") for layer in docker["history"])
        (listed,) = json.loads(self._call("images", "--json", name))
        root = Path(self._call("mount", container).strip())
        return Image(name, root, docker["config"], history, _bytes(listed["size"]))

    def remove_containers(self) -> None:
        """Unmount everything."""
        self._call("rm", "--all")

    def _from(self, image: str) -> str:
        pull = [] if image == "scratch" else ["--pull-never"]
        return self._call("from", *pull, *self._policy(), image).strip()

    def _policy(self) -> list[str]:
        return ["--signature-policy", str(self.folder / "policy.json")]

    def _buildah(self) -> list[str]:
        return ["buildah", "--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")]

    def _call(self, *words: str) -> str:
        done = subprocess.run([*self._buildah(), *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CheckError(f"buildah {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def _run(self, command: list[str]) -> None:
        """Run a long command with its output in the log, whose end is shown when it fails."""
        with self._log.open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            end = self._log.read_text(errors="replace").splitlines()[-30:]
            raise CheckError("\n".join([f"{command[0]} failed ({self._log}):", *end]))

    def _registry(self) -> Path:
        """Write pip's settings of this machine for the build, which gets them as a secret."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        ).stdout  # fmt: skip
        settings = configparser.ConfigParser(interpolation=None)
        settings["global"] = {"cert": MOUNTED_CERTIFICATES} if CERTIFICATES.is_file() else {}
        for line in listed.splitlines():
            key, _, value = line.partition("=")
            name = key.rpartition(".")[2]
            addresses = " ".join(word for word in value.strip("'\"").split() if not word.startswith("file:"))
            if name in REGISTRY and addresses:
                settings["global"][name] = addresses
        path = self.folder / "pip.conf"
        with path.open("w") as file:
            settings.write(file)
        return path


def missing_tools() -> list[str]:
    """Return the Debian packages of the tools that are not here."""
    return sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})


def install_tools() -> None:
    """Install what is missing.

    Raises:
        CheckError: this is not root on a Debian or Ubuntu, so a person has to do it.
    """
    if os.geteuid() != 0:
        raise CheckError("this needs root: it mounts file systems and makes namespaces; run it as root, or with sudo")
    packages = missing_tools()
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise CheckError(f"install {', '.join(packages)}")
    subprocess.run(["apt-get", "update", "--quiet=2"], check=True)
    command = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", *packages]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _bytes(text: str) -> int:
    number, unit = text.split()
    return round(float(number) * {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit.upper()])
