"""``download-to-cache``, ``create-model-store``, ``check-cache-env`` and ``mirror`` against a local server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.errors import ExitCode
from tests.fakes import console
from tests.fakes.file_server import FileServer, file_server
from tests.fakes.manifests import file_entry, write_manifest
from tests.fakes.terminal import Terminal

pytestmark = pytest.mark.slow

NAME = "llama_cpp-26b-a4b-q4_k_m-tp1-pp1-latency"
OTHER = "llama_cpp-26b-a4b-q4_k_m-tp1-pp1-throughput"


@dataclass
class Place:
    """A source with two profiles, and an empty cache."""

    source: Path
    server: FileServer
    cache: Path
    variables: dict[str, str]
    ids: list[str]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.gguf").write_bytes(os.urandom(300_000))
    (source / "mmproj.gguf").write_bytes(os.urandom(20_000))
    (source / "other.gguf").write_bytes(os.urandom(1_000))
    with file_server(source) as server:
        model, vision, other = (
            file_entry(server.url, source / name) for name in ("model.gguf", "mmproj.gguf", "other.gguf")
        )
        manifest, cache = tmp_path / "manifest.yaml", tmp_path / "cache"
        ids = write_manifest(
            manifest,
            ({}, {"model.gguf": model, "mmproj.gguf": vision}),
            ({"profile": "throughput"}, {"model.gguf": other}),
        )
        variables = {"NIM_MANIFEST_PATH": str(manifest), "NIM_CACHE_PATH": str(cache)}
        yield Place(source, server, cache, variables, ids)


def _same(folder: Path, source: Path, *names: str) -> bool:
    return all((folder / name).read_bytes() == (source / name).read_bytes() for name in names)


def test_best_profile_is_downloaded_and_kept(place: Place) -> None:
    """Without options it is the best profile; a second run fetches nothing, also with NIM_OFFLINE."""
    first = console.run("download-to-cache", "--json", variables=place.variables)
    asked = len(place.server.paths)
    again = console.run("nim_download_to_cache", variables=place.variables | {"NIM_OFFLINE": "1"})

    assert first.returncode == ExitCode.OK, first.stderr
    folder = Path(json.loads(first.stdout)[NAME])
    assert _same(folder, place.source, "model.gguf", "mmproj.gguf")
    assert asked > 0
    assert again.returncode == ExitCode.OK, again.stderr
    assert again.stdout == f"{NAME}: {folder}\n"
    assert len(place.server.paths) == asked


def test_profiles_are_named_by_id_prefix_or_name(place: Place) -> None:
    """Several after one --profiles, as NIM takes them: by the beginning of an id and by name; --all is every one."""
    done = console.run("download-to-cache", "--json", "--profiles", place.ids[0][:8], OTHER, variables=place.variables)
    every = console.run("download-to-cache", "--json", "--all", variables=place.variables)

    assert done.returncode == ExitCode.OK, done.stderr
    assert set(json.loads(done.stdout)) == {NAME, OTHER}
    assert json.loads(every.stdout) == json.loads(done.stdout)


def test_progress_is_told_without_a_terminal(place: Place) -> None:
    """Through a pipe the download says what it does in plain lines on standard error."""
    done = console.run("download-to-cache", variables=place.variables)

    assert "model files: done" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_progress_bar_on_a_terminal(place: Place, tmp_path: Path) -> None:
    """On a terminal there are bars, of the download and of the export, and both run to their end."""
    options = ["--profile", NAME, "--model-store", str(tmp_path / "store")]
    with Terminal([console.script("create-model-store"), *options], place.variables) as terminal:
        terminal.wait_for("done")
        terminal.wait_for("writing")
        assert terminal.end() == ExitCode.OK

    assert "━" in terminal.raw()
    assert _same(tmp_path / "store", place.source, "model.gguf", "mmproj.gguf")


def test_model_by_its_address(place: Place) -> None:
    """--model-uri fetches a file that no manifest names."""
    done = console.run(
        "download-to-cache", "--json", "--model-uri", f"{place.server.url}/other.gguf", variables=place.variables
    )

    assert done.returncode == ExitCode.OK, done.stderr
    (folder,) = json.loads(done.stdout).values()
    assert _same(Path(folder), place.source, "other.gguf")


def test_failures_have_their_exit_codes(place: Place, tmp_path: Path) -> None:
    """Not there, not as its checksum says, not writable, no such profile, contradicting options: a status for each."""
    (place.source / "model.gguf").write_bytes(b"x" * 300_000)
    damaged = console.run("download-to-cache", variables=place.variables)
    (place.source / "mmproj.gguf").unlink()
    (place.source / "model.gguf").unlink()
    absent = console.run("download-to-cache", variables=place.variables)
    file = tmp_path / "file"
    file.touch()
    unusable = console.run("download-to-cache", variables=place.variables | {"NIM_CACHE_PATH": str(file)})
    unknown = console.run("download-to-cache", "-p", "llama_cpp-26b-a4b-q4_k-tp1", variables=place.variables)
    both = console.run("download-to-cache", "--all", "--lora", variables=place.variables)

    console.fails_well(damaged, ExitCode.CANNOT_START, "model.gguf")
    console.fails_well(absent, ExitCode.NOT_FOUND, ".gguf")
    console.fails_well(unusable, ExitCode.CACHE_NOT_WRITABLE, str(file))
    console.fails_well(unknown, ExitCode.BAD_SETTINGS, "did you mean")
    console.fails_well(both, ExitCode.BAD_SETTINGS, "exclude each other")


def test_offline_without_the_files_is_an_error(place: Place) -> None:
    """With NIM_DISABLE_MODEL_DOWNLOAD the missing files are named, and nobody is asked."""
    done = console.run("download-to-cache", variables=place.variables | {"NIM_DISABLE_MODEL_DOWNLOAD": "1"})

    console.fails_well(done, ExitCode.NOT_FOUND, "model.gguf", "NIM_DISABLE_MODEL_DOWNLOAD")
    assert not place.server.paths


def test_damaged_cache_is_mended(place: Place) -> None:
    """--verify-checksums reads what is there and fetches what is damaged again."""
    folder = Path(json.loads(console.run("download-to-cache", "--json", variables=place.variables).stdout)[NAME])
    blob = (folder / "mmproj.gguf").resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"y" * blob.stat().st_size)

    done = console.run("download-to-cache", "--verify-checksums", variables=place.variables)

    assert done.returncode == ExitCode.OK, done.stderr
    assert _same(folder, place.source, "model.gguf", "mmproj.gguf")


def test_model_store_is_a_plain_folder(place: Place, tmp_path: Path) -> None:
    """create-model-store writes real files; a second run leaves what is whole and replaces what is not."""
    store = tmp_path / "deep" / "store"
    options = ("--profile", place.ids[0][:6], "--model-store", str(store))
    first = console.run("create-model-store", *options, variables=place.variables)
    kept = (store / "model.gguf").stat().st_mtime_ns
    (store / "mmproj.gguf").write_bytes(b"short")
    again = console.run("create-model-store", *options, variables=place.variables)

    assert first.returncode == again.returncode == ExitCode.OK, first.stderr + again.stderr
    assert _same(store, place.source, "model.gguf", "mmproj.gguf")
    assert (store / "model.gguf").stat().st_mtime_ns == kept
    assert sorted(path.name for path in store.iterdir()) == ["mmproj.gguf", "model.gguf"]
    assert not any(path.is_symlink() for path in store.iterdir())


def test_model_store_by_address(place: Place, tmp_path: Path) -> None:
    """--model-repo exports a model without a profile; one of the two has to be given."""
    store = tmp_path / "store"
    uri = f"{place.server.url}/other.gguf"
    done = console.run(
        "create-model-store", "--model-repo", uri, "--model-store", str(store), variables=place.variables
    )
    neither = console.run("create-model-store", "--model-store", str(store), variables=place.variables)

    assert done.returncode == ExitCode.OK, done.stderr
    assert _same(store, place.source, "other.gguf")
    console.fails_well(neither, ExitCode.BAD_SETTINGS, "--profile and --model-repo")


def test_model_store_that_cannot_be_written(place: Place, tmp_path: Path) -> None:
    """A store inside a file is an error that names it, not a traceback."""
    file = tmp_path / "file"
    file.touch()
    options = ("--profile", NAME, "--model-store", str(file / "store"))

    done = console.run("create-model-store", *options, variables=place.variables)

    console.fails_well(done, ExitCode.CACHE_NOT_WRITABLE, str(file))


def test_check_cache_env(tmp_path: Path) -> None:
    """A folder that can be used is described; one that cannot ends with 73 and the command that helps."""
    good = console.run("check-cache-env", variables={"NIM_CACHE_PATH": str(tmp_path / "cache")})
    record = console.run("nim_check_cache_env", "--json", variables={"NIM_CACHE_PATH": str(tmp_path / "cache")})
    file = tmp_path / "file"
    file.touch()
    bad = console.run("check-cache-env", variables={"NIM_CACHE_PATH": str(file)})

    assert good.returncode == ExitCode.OK
    assert str(tmp_path / "cache") in good.stdout
    assert json.loads(record.stdout)["ok"] is True
    assert json.loads(record.stdout)["writable"] is True
    console.fails_well(bad, ExitCode.CACHE_NOT_WRITABLE, str(file))
    assert "Remedy" in bad.stdout


def test_mirror_needs_files_of_a_hub(place: Place, tmp_path: Path) -> None:
    """What comes from a plain address needs no mirror, and that is said."""
    done = console.run("mirror", str(tmp_path / "mirror"), "--profiles", NAME, variables=place.variables)

    console.fails_well(done, ExitCode.BAD_SETTINGS, "nothing to mirror")


def test_mirrored_profile_is_used_by_another_machine(place: Place, tmp_path: Path) -> None:
    """Files of a hub go from one mirror to a folder of one's own, and a second cache is filled from there alone."""
    entry = file_entry(place.server.url, place.source / "model.gguf")
    hub = entry.model_copy(update={"uri": "hf://team/model:main?file=model.gguf"})
    manifest = tmp_path / "hub.yaml"
    write_manifest(manifest, ({}, {"model.gguf": hub}))
    first = tmp_path / "first"
    first.mkdir()
    (first / "team%2Fmodel%3Amain%3Ffile%3Dmodel.gguf").write_bytes((place.source / "model.gguf").read_bytes())
    variables = place.variables | {"NIM_MANIFEST_PATH": str(manifest), "NIM_REPOSITORY_OVERRIDE": str(first)}

    copied = console.run("mirror", str(tmp_path / "second"), "-p", NAME, variables=variables)
    again = console.run("mirror", str(tmp_path / "second"), "-p", NAME, variables=variables)
    (first / "team%2Fmodel%3Amain%3Ffile%3Dmodel.gguf").unlink()
    elsewhere = {"NIM_REPOSITORY_OVERRIDE": str(tmp_path / "second"), "NIM_CACHE_PATH": str(tmp_path / "cache-2")}
    used = console.run("download-to-cache", "--json", variables=variables | elsewhere)

    assert copied.returncode == ExitCode.OK, copied.stderr
    assert "1 file copied" in copied.stdout
    assert "0 files copied" in again.stdout
    assert used.returncode == ExitCode.OK, used.stderr
    assert _same(Path(json.loads(used.stdout)[NAME]), place.source, "model.gguf")
