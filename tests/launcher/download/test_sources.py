"""URIs of model files: every form that is in use, and what is refused; names that leave no folder; mirrors' names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.download.listings import parse_listing
from launcher.download.sources import (
    HubSource,
    LocalSource,
    NgcSource,
    S3Source,
    WebSource,
    file_asked_for,
    mirrored,
    parse_source,
    safe_name,
)
from launcher.errors import ExitCode, LaunchError, NetworkError


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("hf://google/gemma-4-31B-it", HubSource("google/gemma-4-31B-it", "main", None)),
        ("hf://google/gemma@v1.2", HubSource("google/gemma", "v1.2", None)),
        ("hf://google/gemma:v1.2", HubSource("google/gemma", "v1.2", None)),
        ("hf://google/gemma:main?file=a/b.json", HubSource("google/gemma", "main", "a/b.json")),
        ("hf://google/gemma?file=a.json", HubSource("google/gemma", "main", "a.json")),
        ("hf://google/gemma@refs/pr/3:a.json", HubSource("google/gemma", "refs/pr/3", "a.json")),
        ("hf://google/gemma@main:LICENSE", HubSource("google/gemma", "main", "LICENSE")),
        ("hf://ggml-org/gemma-GGUF:gemma-Q4_K_M.gguf", HubSource("ggml-org/gemma-GGUF", "main", "gemma-Q4_K_M.gguf")),
        ("ngc://nim/meta/llama:hf?file=c.json", NgcSource("nim", "meta", "llama", "hf", "c.json")),
        ("ngc://nvidia/llama:1.0+a", NgcSource("nvidia", None, "llama", "1.0+a", None)),
        ("https://host:8443/a/b.gguf?x=1", WebSource("https://host:8443/a/b.gguf?x=1")),
        ("s3://bucket/a/b.gguf", S3Source("bucket", "a/b.gguf")),
        ("file:///models/a%20b", LocalSource(Path("/models/a b"))),
        ("/models/a", LocalSource(Path("/models/a"))),
    ],
)
def test_uris_are_read(uri: str, source: object) -> None:
    """NIM's forms and those of other programs."""
    assert parse_source(uri) == source


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hf://gemma", "hf://organisation/repository"),
        ("hf://google/gemma@main:a.json?file=b.json", "two files"),
        ("hf://google/gemma?file=../../x", "leaves the folder"),
        ("hf://google/gemma@..:a.json", "is no revision"),
        ("hf://google/ge mma", "blank"),
        ("ngc://nim/llama", "ngc://organisation/team/model:version"),
        ("ngc://a/b/c/d:1", "ngc://organisation/team/model:version"),
        ("https://", "names no host"),
        ("https://host:port/x", "cannot be read"),
        ("s3://bucket", "s3://bucket/key"),
        ("gs://bucket/key", "gs:// is not supported"),
        ("modelscope://a/b", "modelscope:// is not supported"),
        ("models/a", "neither a URI nor an absolute path"),
    ],
)
def test_other_uris_are_refused_with_the_form_that_works(uri: str, words: str) -> None:
    """With the exit code for settings."""
    with pytest.raises(LaunchError, match=words) as caught:
        parse_source(uri)
    assert caught.value.code == ExitCode.BAD_SETTINGS


def test_a_refused_uri_shows_no_password() -> None:
    """It ends in logs."""
    with pytest.raises(LaunchError) as caught:
        parse_source("https://user:secret@host:port/x")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("name", ["", "/etc/passwd", "..", "a/../../b", "a\\b", "a\0b", "a\nb", "x" * 1025])
def test_names_that_leave_their_folder_are_refused(name: str) -> None:
    """They come from manifests and from servers."""
    with pytest.raises(LaunchError, match="leaves the folder"):
        safe_name(name)


@given(st.text(min_size=1, max_size=40))
def test_a_name_that_is_let_through_stays_below_its_folder(name: str) -> None:
    """Whatever a server sends."""
    try:
        safe = safe_name(name)
    except LaunchError:
        return
    assert Path("/cache/snapshot") in (Path("/cache/snapshot") / safe).parents
    assert ".." not in Path(safe).parts


@pytest.mark.parametrize(
    ("base", "place"),
    [
        ("s3://nim_bucket/", S3Source("nim_bucket", "nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json")),
        ("s3://b/deep", S3Source("b", "deep/nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json")),
        ("https://h/p/", WebSource("https://h/p/nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json")),
        ("jfrog://h:1", WebSource("https://h:1/nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json")),
        ("/disk", LocalSource(Path("/disk/nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json"))),
        ("file:///disk", LocalSource(Path("/disk/nim%2Fmeta%2Fllama3-8b-instruct%3Ahf%3Ffile%3Dconfig.json"))),
    ],
)
def test_a_mirror_is_laid_out_as_nims_are(base: str, place: object) -> None:
    """The example is the one of NVIDIA's documentation: a bucket that was filled for NIM serves here, too."""
    assert mirrored(parse_source("ngc://nim/meta/llama3-8b-instruct:hf?file=config.json"), base) == place


def test_a_mirror_changes_no_address_that_is_none_of_a_hub() -> None:
    """``https://``, ``s3://`` and paths are where they are."""
    for uri in ("https://host/a", "s3://bucket/a", "/models/a"):
        assert mirrored(parse_source(uri), "s3://mirror") == parse_source(uri)


def test_the_file_of_an_address_is_its_last_part_or_what_its_query_names() -> None:
    """Registries name the file in the query."""
    assert file_asked_for(parse_source("https://host/a/b.gguf?x=1")) == "b.gguf"
    assert file_asked_for(parse_source("https://host/download?file=b.gguf")) == "b.gguf"
    assert file_asked_for(parse_source("s3://bucket/a/b.gguf")) == "b.gguf"


@pytest.mark.parametrize("commit", ["../../../etc", "/etc", "..", "a/b", ".hidden"])
def test_a_mirrors_list_cannot_choose_a_place_in_the_cache(commit: str) -> None:
    """The commit that it names becomes part of paths, as the names of files do."""
    data = {"format_version": 1, "commit": commit, "files": {}}
    with pytest.raises(NetworkError, match="cannot be read"):
        parse_listing(data, "main")
    assert parse_listing(data | {"commit": "0" * 40}, "main").commit == "0" * 40
    assert parse_listing(data | {"commit": None}, "refs/pr/3").commit == "refs/pr/3"
