"""Downloads from the Hugging Face hub: names and checksums from its API, keys, gates, redirects, its cache layout."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from launcher.cache.store import Cache
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.errors import AccessError, ChecksumError, ExitCode, LicenceGateError, NotFoundError
from tests.launcher.download.conftest import Seen, access, content
from tests.launcher.download.servers import COMMIT, Hub, hub_and_storage

MODEL = "google/gemma-4-26B-A4B-it"
FILES = {
    "config.json": b'{"model_type": "gemma4"}',
    "model-00001-of-00002.safetensors": content(300_000, 1),
    "model-00002-of-00002.safetensors": content(123_457, 2),
    "chat_template.jinja": b"{{ messages }}",
    "original/weights.bin": content(5_000, 3),
}
CHECKPOINT = FileRequest("*", f"hf://{MODEL}:main", include=("*.safetensors", "*.json"))


def test_a_checkpoint_is_fetched_by_the_hubs_own_list_and_checked(cache: Cache) -> None:
    """Names, sizes and checksums come from the hub; the workspace holds exactly the files that are included."""
    with hub_and_storage({MODEL: FILES}) as hub:
        seen = Seen()
        folder = fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url), seen)

    names = {"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: FILES[name] for name in names}
    assert folder.parent == cache.root / "workspaces"
    assert seen.phases[0] == "resolving"
    assert seen.phases[-1] == "done"
    assert seen.received == sum(len(FILES[name]) for name in names)


def test_a_full_cache_needs_no_network_and_no_lock(cache: Cache) -> None:
    """The second start asks nobody, even with the hub gone and nothing set to offline."""
    with hub_and_storage({MODEL: FILES}) as hub:
        first = fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url))
        asked = len(hub.requests)

        assert fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url)) == first
        assert len(hub.requests) == asked
    assert fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url)) == first


def test_files_of_a_subfolder_and_a_prefix_of_the_workspace_keep_their_places(cache: Cache) -> None:
    """``draft/*`` puts another repository's files below ``draft/``."""
    with hub_and_storage({MODEL: FILES}) as hub:
        wanted = [
            FileRequest("config.json", f"hf://{MODEL}@main:config.json"),
            FileRequest("draft/*", f"hf://{MODEL}", include=("*.json", "original/*")),
        ]
        folder = fetch_workspace(wanted, cache, access(hf_endpoint=hub.url))

    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"config.json", "draft/config.json", "draft/original/weights.bin"}
    assert len(hub.requests_for("config.json")) == 1


def test_the_token_goes_to_the_hub_and_never_to_its_storage(cache: Cache) -> None:
    """Large files are redirected to another host, which gets no key."""
    with hub_and_storage({MODEL: FILES}, key="hf_secret") as hub:
        fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url, hf="hf_secret"))

    assert {request.headers.get("Authorization") for request in hub.requests} == {"Bearer hf_secret"}
    assert hub.storage.requests
    assert all("Authorization" not in request.headers for request in hub.storage.requests)


def test_storage_links_are_used_again_until_they_expire(cache: Cache) -> None:
    """One redirect serves many ranges; when storage refuses the old link, the hub is asked for a new one."""
    expired = []

    def refuse_once(request, answer):
        if hub.storage.requests.index(request) == 9:
            expired.append(request)
            answer.status, answer.body, answer.headers = 403, b"Request has expired", {}
        return answer

    big = {"model.safetensors": content(2_000_000, 4)}
    with hub_and_storage({MODEL: big}) as hub:
        hub.storage.faults.append(refuse_once)
        folder = fetch_workspace([FileRequest("*", f"hf://{MODEL}")], cache, access(hf_endpoint=hub.url))

    assert (folder / "model.safetensors").read_bytes() == big["model.safetensors"]
    assert expired
    assert len(hub.requests_for("/resolve/")) < len(hub.storage.requests)


@pytest.mark.parametrize(("token", "words"), [(None, "set HF_TOKEN"), ("hf_x", "account that HF_TOKEN belongs to")])
def test_a_gated_repository_tells_where_to_accept_the_licence(cache: Cache, token: str | None, words: str) -> None:
    """The gate is no missing key: it has its own error, exit code and remedy."""
    with hub_and_storage({MODEL: FILES}, key="hf_x") as hub:
        hub.gated.add(MODEL)
        keys = {"hf": token} if token else {}
        with pytest.raises(LicenceGateError) as caught:
            fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url, **keys))

    assert caught.value.code == ExitCode.LICENCE_NOT_ACCEPTED
    assert f"{hub.url}/{MODEL}" in caught.value.remedy
    assert words in caught.value.remedy


def test_a_wrong_token_is_told_from_a_missing_repository(cache: Cache) -> None:
    """A bad token ends with the code for access, an unknown repository with the one for what does not exist."""
    with hub_and_storage({MODEL: FILES}, key="right") as hub:
        with pytest.raises(AccessError, match="HF_TOKEN"):
            fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url, hf="wrong"))
        for keys in ({}, {"hf": "right"}):
            with pytest.raises(NotFoundError, match="google/none"):
                fetch_workspace([FileRequest("*", "hf://google/none")], cache, access(hf_endpoint=hub.url, **keys))


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (f"hf://{MODEL}@v9:config.json", "no such revision"),
        (f"hf://{MODEL}@main:none.json", "no file none.json"),
        (f"hf://{MODEL}@{COMMIT}:none.json", "no file none.json"),
    ],
)
def test_a_missing_revision_or_file_is_named(cache: Cache, uri: str, words: str) -> None:
    """The message says which part of the URI is wrong."""
    with hub_and_storage({MODEL: FILES}) as hub, pytest.raises(NotFoundError, match=words):
        fetch_workspace([FileRequest("none.json", uri)], cache, access(hf_endpoint=hub.url))


def test_a_file_other_than_the_manifests_is_refused_before_it_is_fetched(cache: Cache) -> None:
    """A moved branch shows by its checksum in the hub's list; no gigabyte is fetched to find out."""
    wanted = FileRequest("m", f"hf://{MODEL}@main:model-00002-of-00002.safetensors", sha256="0" * 64)
    with hub_and_storage({MODEL: FILES}) as hub, pytest.raises(ChecksumError, match="another model-00002"):
        fetch_workspace([wanted], cache, access(hf_endpoint=hub.url))

    assert not hub.storage.requests


def test_a_pinned_file_with_all_facts_is_fetched_without_asking_for_a_list(cache: Cache) -> None:
    """A manifest that knows commit, size and checksum costs one request, and no API."""
    name = "model-00002-of-00002.safetensors"
    wanted = FileRequest(
        "m.safetensors", f"hf://{MODEL}:{COMMIT}?file={name}", len(FILES[name]), hashlib.sha256(FILES[name]).hexdigest()
    )
    with hub_and_storage({MODEL: FILES}) as hub:
        folder = fetch_workspace([wanted], cache, access(hf_endpoint=hub.url))

    assert (folder / "m.safetensors").read_bytes() == FILES[name]
    assert not hub.requests_for("/api/")


def test_a_start_that_was_broken_off_goes_on_with_the_same_commit(cache: Cache) -> None:
    """What a branch stood for is noted before the first byte, so a moved branch does not mix two versions."""
    with hub_and_storage({MODEL: FILES}) as hub:
        hub.gated.add(MODEL)
        with pytest.raises(LicenceGateError):
            fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url))
        hub.gated.clear()
        asked = len(hub.requests_for("/api/"))
        fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url))

        assert len(hub.requests_for("/api/")) == asked


def _hub_library_reads(cache: Cache) -> Path:
    return Path(
        huggingface_hub.snapshot_download(
            MODEL, cache_dir=cache.root / "huggingface" / "hub", local_files_only=True, allow_patterns=["*.json"]
        )
    )


def test_huggingface_hub_reads_the_cache(cache: Cache) -> None:
    """The layout is the hub's: its own library finds the files without a network."""
    with hub_and_storage({MODEL: FILES}) as hub:
        fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url))

    folder = _hub_library_reads(cache)

    assert (folder / "config.json").read_bytes() == FILES["config.json"]
    assert folder.name == COMMIT


def _fill_like_the_hub(cache: Cache, hub: Hub) -> None:
    """Fill the cache with ``huggingface_hub`` itself, in a process of its own: it reads its settings when imported."""
    patterns = ["*.safetensors", "*.json"]
    code = f"import huggingface_hub; huggingface_hub.snapshot_download({MODEL!r}, allow_patterns={patterns})"
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache.root / "huggingface"), "HF_HUB_DISABLE_XET": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, timeout=60)


def test_a_cache_that_huggingface_hub_filled_is_used_as_it_is(cache: Cache) -> None:
    """No byte is fetched again: the files are checked against the names that the hub gave them, once."""
    with hub_and_storage({MODEL: FILES}) as hub:
        _fill_like_the_hub(cache, hub)
        sent = hub.storage.settled()
        seen = Seen()
        folder = fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url), seen)

        assert hub.storage.settled() == sent
    assert (folder / "config.json").read_bytes() == FILES["config.json"]
    assert "downloading" not in seen.phases
    assert "checking" in seen.phases

    again = Seen()
    fetch_workspace([CHECKPOINT], cache, access(offline=True), again)
    assert again.phases == ["done"]


def test_the_hubs_list_is_kept_where_its_library_looks_for_it(cache: Cache) -> None:
    """``trees/<commit>.json`` has the library's form."""
    with hub_and_storage({MODEL: FILES}) as hub:
        fetch_workspace([CHECKPOINT], cache, access(hf_endpoint=hub.url))

    kept = cache.root / "huggingface" / "hub" / "models--google--gemma-4-26B-A4B-it" / "trees" / f"{COMMIT}.json"
    data = json.loads(kept.read_bytes())
    assert data["format_version"] == 1
    assert set(data["files"]) == set(FILES)
