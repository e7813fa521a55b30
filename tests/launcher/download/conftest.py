"""Fixtures of the tests of downloads: a cache, small sizes, short pauses, certificates of an authority of our own."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from launcher.cache.store import Cache
from launcher.download.access import Access, Keys, Patience, Tuning
from launcher.download.progress import DownloadState

PIECE = 32 * 1024
TUNING = Tuning(connections=4, piece=PIECE, segment=8 * PIECE)
PATIENCE = Patience(connect_s=60.0, stall_s=60.0, attempts=4, backoff_s=0.01, longest_pause_s=0.05)


class Seen:
    """A progress that keeps what it was told."""

    def __init__(self, then: Callable[[DownloadState], None] = lambda _: None) -> None:
        self.states: list[DownloadState] = []
        self._then = then

    def update(self, state: DownloadState) -> None:
        self.states.append(state)
        self._then(state)

    @property
    def phases(self) -> list[str]:
        return [str(state.phase) for state in self.states]

    @property
    def received(self) -> int:
        return max((state.bytes_received for state in self.states), default=0)


def access(**values: object) -> Access:
    """An access with small pieces and short pauses; the keys ``hf``, ``ngc`` and ``mirror`` are given as text."""
    names = {"hf": "hf_token", "ngc": "ngc_api_key", "mirror": "mirror_credential"}
    keys = {name: SecretStr(str(values.pop(short))) for short, name in names.items() if short in values}
    s3 = {"s3": values.pop("s3")} if "s3" in values else {}
    return Access(**{"tuning": TUNING, "patience": PATIENCE, "keys": Keys(**keys, **s3)} | values)


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that do not repeat."""
    return random.Random(seed).randbytes(size)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", scratch=tmp_path / "scratch", lease_s=1.5)


@dataclass(frozen=True)
class Certificates:
    """An authority, and a server's certificate for localhost that it signed."""

    authority: Path
    certificate: Path
    key: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=A company")
    openssl("req", *curve, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl(
        "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
        "-extfile", "names", "-out", "certificate.pem",
    )  # fmt: skip
    return Certificates(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
