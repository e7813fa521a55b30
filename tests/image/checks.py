"""What is checked of a built image and of a container made from it; each check returns what it saw, for the report."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from tests.image.container import ROOT, CheckError, Container, Image

MAX_BYTES: Final = 350_000_000
LABELS: Final = ("title", "description", "licenses", "version", "revision", "created", "source", "base.name")
COMMANDS: Final = (
    "gemma4-nim", "nim-serve", "nim-run", "list-model-profiles", "download-to-cache", "create-model-store", "mirror",
    "check-cache-env",
)  # fmt: skip
FILES: Final = (
    "LICENSE", "MODEL_LICENSE", "NOTICE", "sbom.spdx.json", "etc/default/model_manifest.yaml", ".cache", "workspace"
)  # fmt: skip
WRITABLE: Final = ("/opt/nim/.cache", "/tmp", "/dev/shm")  # noqa: S108 - places in the container
READ_ONLY: Final = ("/", "/opt/nim", "/opt/nim/workspace", "/dev", "/var/tmp")  # noqa: S108 - the same
SECRET: Final = re.compile(
    r"hf_[A-Za-z0-9]{20,}|nvapi-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|://[^/\s:@]+:[^/\s@]+@"
)
SECRET_PATHS: Final = (
    "root/.cache",
    "root/.netrc",
    "root/.pip",
    "root/.config",
    "etc/pip.conf",
    "build",
    "run/secrets",
)
NOT_SECRETS: Final = (".so", ".safetensors", ".gguf", ".pyc", ".py", ".pem", ".crt", ".js")


def check(condition: object, message: str) -> None:
    """Raise unless the condition holds."""
    if not condition:
        raise CheckError(message)


def configuration(image: Image) -> str:
    """Check user, entrypoint, port, signal, health check and labels."""
    config = image.config
    check(config["User"] == "1000:0", f"user {config['User']}")
    check(config["Entrypoint"][0].startswith("/opt/nim/.venv/bin/python"), f"entrypoint {config['Entrypoint']}")
    check("8000/tcp" in config["ExposedPorts"], "port 8000 is not exposed")
    check(config.get("StopSignal", "SIGTERM") == "SIGTERM", "the stop signal is another one")
    check(config["Healthcheck"]["Test"][0] == "CMD", f"health check {config['Healthcheck']['Test']}")
    labels = config["Labels"]
    absent = [name for name in LABELS if not labels.get(f"org.opencontainers.image.{name}")]
    check(not absent, f"labels are missing: {absent}")
    return f"user {config['User']}, exec-form entrypoint and health check, {len(labels)} labels"


def files(image: Image) -> str:
    """Check the layout, the commands, and that nothing may be written but the cache and the workspace."""
    nim = image.root / "opt/nim"
    absent = [name for name in FILES if not (nim / name).exists()]
    absent += [name for name in COMMANDS if not (nim / ".venv/bin" / name).is_file()]
    check(not absent, f"missing in /opt/nim: {absent}")
    writable = [
        str(path.relative_to(image.root))
        for path in nim.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & 0o022
    ]
    check(sorted(writable) == ["opt/nim/.cache", "opt/nim/workspace"], f"others may write {writable}")
    rising = [path for path in _regular_files(image.root) if path.stat().st_mode & 0o6000]
    check(not rising, f"programs that run as another user: {rising}")
    check((nim / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes(), "LICENSE is another file")
    return f"layout of /opt/nim, {len(COMMANDS)} commands, manifest, licence files; no setuid or setgid program"


def _regular_files(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            if path.is_file() and not path.is_symlink():
                yield path


def size(image: Image) -> str:
    """Check that it is small."""
    check(image.size < MAX_BYTES, f"{image.size / 1e6:.0f} MB, and {MAX_BYTES / 1e6:.0f} are allowed")
    return f"{image.size / 1e6:.0f} MB unpacked, all layers"


def secrets(image: Image) -> str:
    """Check history, variables and files for keys and passwords, and for what a build leaves behind."""
    told = "\n".join([*image.history, *image.config["Env"], json.dumps(image.config["Labels"])])
    check(not SECRET.search(told), "something like a key stands in history, variables or labels")
    found = [path for path in SECRET_PATHS if (image.root / path).exists() and any((image.root / path).iterdir())]
    check(not found, f"left behind by the build: {found}")
    looked_at = 0
    for path in (image.root / "opt/nim").rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix not in NOT_SECRETS:
            looked_at += 1
            check(not SECRET.search(path.read_text(errors="replace")), f"{path} holds something like a key")
    return f"none in {len(image.history)} steps of history, variables, labels and {looked_at} files"


def bill_of_materials(image: Image) -> str:
    """Check that the SBOM lists exactly what is installed."""
    document = json.loads((image.root / "opt/nim/sbom.spdx.json").read_text())
    check(document["spdxVersion"] == "SPDX-2.3", "another version of SPDX")
    references = [
        entry["externalRefs"][0]["referenceLocator"] for entry in document["packages"] if "externalRefs" in entry
    ]
    (packages,) = image.root.glob("opt/nim/.venv/lib/python3*/site-packages")
    python = {f"{_canonical(one.metadata['Name'])}@{one.version}" for one in distributions(path=[str(packages)])}
    listed = {text.removeprefix("pkg:pypi/") for text in references if text.startswith("pkg:pypi/")}
    check(listed == python, f"Python packages differ: {sorted(listed ^ python)}")
    status = (image.root / "var/lib/dpkg/status").read_text()
    debian = {
        text.partition("\n")[0].removeprefix("Package: ")
        for text in status.split("\n\n")
        if "\nStatus: install ok installed\n" in text
    }
    names = {unquote(text.split("/", 2)[2].partition("@")[0]) for text in references if text.startswith("pkg:deb/")}
    check(names == debian, f"Debian packages differ: {sorted(names ^ debian)}")
    return f"{len(listed)} Python and {len(debian)} Debian packages, as installed"


def answers(container: Container) -> str:
    """Run README's curl commands as they stand there, and check what comes back."""
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"```sh\n(curl .+?)\n```", readme, re.DOTALL)
    checks: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("text", lambda text: "Paris" in _message(text)["content"]),
        ("stream", lambda text: text.count("\ndata: ") > 1 and text.rstrip().endswith("data: [DONE]")),
        ("picture", lambda text: "red" in _message(text)["content"].lower()),
        ("thinking", lambda text: _message(text)["reasoning"] and "15" in _message(text)["content"]),
        ("tool", lambda text: json.loads(_message(text)["tool_calls"][0]["function"]["arguments"])["city"] == "Paris"),
    )
    check(len(commands) == len(checks), f"README has {len(commands)} curl commands, and {len(checks)} are known here")
    for (name, is_right), command in zip(checks, commands, strict=True):
        answer = container.run(["bash", "-c", command], cwd=ROOT)
        check(answer.returncode == 0 and is_right(answer.stdout), f"{name}: {answer.stdout}{answer.stderr}")
    return ", ".join(name for name, _ in checks)


def ports(container: Container) -> str:
    """Check that one port listens, of all there are."""
    found = container.listening()
    check(found == [8000], f"listening: {found}")
    udp = container.execute(["/usr/bin/cat", "/proc/net/udp", "/proc/net/udp6"]).stdout
    check(len(udp.splitlines()) == len(("udp", "udp6")), f"UDP sockets: {udp}")
    return "65,535 TCP ports tried: 8000 listens, and no other; no UDP"


def processes(container: Container) -> str:
    """Check who runs: process 1 is the server itself, everybody is the random user, and no shell is there."""
    status = container.execute(["/usr/bin/cat", "/proc/1/cmdline"]).stdout.split("\0")
    check(any("nim-serve" in word for word in status), f"process 1 is {status}")
    uid = container.execute(["/usr/bin/stat", "--format=%u:%g", "/proc/1"]).stdout.strip()
    check(uid == f"{container.start.uid}:{container.start.gid}", f"process 1 belongs to {uid}")
    shell = subprocess.run(
        ["nsenter", "--target", str(container.pid), "--mount", "--root", "--", "/usr/bin/dash", "-c", "true"],
        capture_output=True, check=False,
    )  # fmt: skip
    check(shell.returncode != 0, "a shell could be run")
    return f"process 1 is nim-serve as {uid}; no shell could be run"


def read_only(container: Container) -> str:
    """Check what may be written, by writing."""
    for path in (*WRITABLE, *READ_ONLY):
        done = container.execute(["/usr/bin/touch", f"{path}/probe"])
        check((done.returncode == 0) == (path in WRITABLE), f"writing to {path}: {done.stderr or 'it worked'}")
    return "only the cache, /tmp and /dev/shm can be written"


def health(container: Container) -> str:
    """Run the image's own health check."""
    done = container.execute(container.image.config["Healthcheck"]["Test"][1:])
    check(done.returncode == 0, f"health check: {done.stderr}")
    return f"healthy: {done.stdout.strip()}"


def termination(container: Container) -> str:
    """Check that SIGTERM to process 1 ends everything with status 0."""
    status = container.terminate()
    check(status == 0, f"status {status} after SIGTERM:\n{container.output()}")
    return "SIGTERM to process 1: status 0"


def _message(text: str) -> Any:
    return json.loads(text)["choices"][0]["message"]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def bundle(image: Image) -> str:
    """Check that the build stage for engine bundles left one that says what it is, and nothing else."""
    (manifest,) = image.root.glob("bundles/*/manifest.json")
    stage = json.loads(manifest.read_text())["stage"]
    check(stage == "prebuilt", f"stage {stage}")
    check([path.name for path in image.root.iterdir()] == ["bundles"], "the target holds more than bundles")
    return f"{manifest.parent.name}, {stage}"
