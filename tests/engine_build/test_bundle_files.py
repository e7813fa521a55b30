"""A bundle's manifest and files: written whole, read back, and refused when anything is not as it was built."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine_build.checksums import FileRecord, digest_of, files_below, record_files
from engine_build.errors import BundleError
from engine_build.fingerprint import Fingerprint, Hardware
from engine_build.limits import Limits
from engine_build.manifest import MANIFEST, Manifest, Source, is_bundle, read_manifest, write_manifest
from engine_build.verification import check_files, check_match

FINGERPRINT = Fingerprint(
    engine="vllm",
    engine_version="0.32.0",
    hardware=Hardware(device="NVIDIA L40S", capability="8.9", count=1, driver="580.95.05"),
    model="d" * 64,
    precision="fp8",
    arguments={"max_model_len": 4096},
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a bundle with two files."""
    folder = tmp_path / "bundle"
    (folder / "caches").mkdir(parents=True)
    (folder / "engine_args.yaml").write_text("max_model_len: 4096\n")
    (folder / "caches" / "kernel.bin").write_bytes(os.urandom(5000))
    manifest = Manifest(
        stage="complete",
        fingerprint=FINGERPRINT,
        source=Source(name="gemma", digest="d" * 64, quantisation="fp8", files={}),
        names=("gemma",),
        limits=Limits(context_tokens=4096, max_sequences=8),
        files=record_files(folder, files_below(folder)),
        created="2026-11-21T12:00:00+00:00",
        builder="test",
        step_seconds={},
    )
    write_manifest(folder, manifest)
    return folder


def test_what_is_written_is_read(bundle: Path) -> None:
    """A manifest comes back as it was, and names every file but itself."""
    manifest = read_manifest(bundle)

    assert manifest.fingerprint == FINGERPRINT
    assert set(manifest.files) == {"engine_args.yaml", "caches/kernel.bin"}
    assert manifest.bundle_id == FINGERPRINT.bundle_id
    assert is_bundle(bundle)
    check_match(manifest, FINGERPRINT)
    assert check_files(bundle, manifest.files) == ()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.replace('"fp8"', '"bf16"', 1), "was changed after the build"),
        (lambda text: text.replace("2026-11-21", "2026-11-20"), "was changed after the build"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "has format 9; this version reads 1"),
        (lambda text: text[:200], "is no JSON"),
        (lambda _: "[]", "is not the manifest of an engine bundle"),
    ],
    ids=["precision", "date", "format", "cut", "list"],
)
def test_a_changed_manifest_is_refused(bundle: Path, damage: object, words: str) -> None:
    """Whatever is altered in the manifest, its seal, its format or its form tells."""
    path = bundle / MANIFEST
    path.write_text(damage(path.read_text()))

    with pytest.raises(BundleError, match=words):
        read_manifest(bundle)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    """It is called what it is; and another program's manifest.json does not make one."""
    assert not is_bundle(tmp_path)
    with pytest.raises(BundleError, match=r"is no engine bundle: it has no manifest\.json"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"name": "a web page"}))
    assert not is_bundle(tmp_path)


def test_a_changed_file_is_named(bundle: Path) -> None:
    """One bit in one file: that file, and no other, is named, even though its size and time are the same."""
    path, manifest = bundle / "caches" / "kernel.bin", read_manifest(bundle)
    before, data = path.stat(), bytearray(path.read_bytes())
    data[1234] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    found = check_files(bundle, manifest.files)

    assert [str(one) for one in found] == ["caches/kernel.bin was changed: its SHA-256 is another"]


def test_missing_and_short_files_are_named(bundle: Path) -> None:
    """Both are told apart, and both are told."""
    manifest = read_manifest(bundle)
    (bundle / "caches" / "kernel.bin").unlink()
    (bundle / "engine_args.yaml").write_text("max")

    found = [str(one) for one in check_files(bundle, manifest.files)]

    assert found == ["caches/kernel.bin is missing", "engine_args.yaml has 3 bytes, not 20"]


def test_what_was_read_once_is_not_read_again(bundle: Path, tmp_path: Path) -> None:
    """A receipt spares the second reading, until the file is touched; a change is then found all the same."""
    manifest, receipt = read_manifest(bundle), tmp_path / "receipts" / "one.json"
    assert check_files(bundle, manifest.files, receipt) == ()
    path = bundle / "caches" / "kernel.bin"
    path.chmod(0)
    os.sync()
    # Its change time is another now, so it is read: with rights it passes, without it is named.
    path.chmod(0o644)
    assert check_files(bundle, manifest.files, receipt) == ()
    remembered = json.loads(receipt.read_text())
    assert set(remembered) == set(manifest.files)

    facts, data = path.stat(), bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert [one.name for one in check_files(bundle, manifest.files, receipt)] == ["caches/kernel.bin"]


def test_a_receipt_is_believed_only_for_the_same_checksum(bundle: Path, tmp_path: Path) -> None:
    """A manifest with another checksum for the same file is not satisfied by an old receipt."""
    manifest, receipt = read_manifest(bundle), tmp_path / "one.json"
    assert check_files(bundle, manifest.files, receipt) == ()
    wrong = {name: FileRecord(size=record.size, sha256="e" * 64) for name, record in manifest.files.items()}

    assert len(check_files(bundle, wrong, receipt)) == len(wrong)


def test_a_prebuilt_bundle_is_not_ready(bundle: Path) -> None:
    """It is refused with what is left to do."""
    manifest = read_manifest(bundle).model_copy(update={"stage": "prebuilt", "pending": ("cold start", "gate")})

    with pytest.raises(BundleError, match="only prebuilt: cold start, gate are left to do"):
        check_match(manifest, FINGERPRINT)


def test_a_bundle_for_something_else_is_refused_by_name(bundle: Path) -> None:
    """The difference is told, and no file has to be read for that."""
    here = FINGERPRINT.model_copy(update={"engine_version": "0.33.0"})

    with pytest.raises(BundleError, match=r"engine_version: built for 0\.32\.0, here 0\.33\.0"):
        check_match(read_manifest(bundle), here)


def test_a_digest_depends_on_names_and_contents(tmp_path: Path) -> None:
    """Renaming a file, or changing one byte, gives another digest; the order in which they are given does not."""
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    one = digest_of(record_files(tmp_path, ["a", "b"]))
    (tmp_path / "b").rename(tmp_path / "c")

    assert digest_of(record_files(tmp_path, ["c", "a"])) != one
    (tmp_path / "c").rename(tmp_path / "b")
    assert digest_of(record_files(tmp_path, ["b", "a"])) == one
