"""What a caller's text of a picture means, and what is read for it: base64, paths and forms. No server is needed."""

from __future__ import annotations

import base64
import contextlib
import os
import time
from functools import partial
from pathlib import Path

import pytest

from api.media.base64_text import decode_base64
from api.media.errors import SourceError
from api.media.local_file import read_local_file
from api.media.source import FileSource, InlineSource, UrlSource, read_source
from tests.fakes.measuring import best

LIMIT = 1000


def content(text: str) -> bytes:
    """Return the bytes that an inline picture stands for."""
    source = read_source(text, max_bytes=LIMIT)
    assert isinstance(source, InlineSource)
    assert isinstance(source.picture.data, str)
    assert source.picture.is_base64
    return decode_base64(source.picture.data[source.picture.start :])


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64,aGVsbG8=",
        "DATA:image/png;BASE64,aGVsbG8=",
        "Data:Image/PNG; Base64 ,aGVsbG8=",
        "data:;base64,aGVsbG8",
        "data:image/png;charset=x;base64,aGVs\n bG8=\r\n",
        "data:image/png;base64, a G V s b G 8 = ",
        "data:image/png;base64,aGVsbG8%3D",
        "data:image/png;base64,aGVsbG8%3d%0A",
        "  data:image/png;base64,aGVsbG8=",
        "data:image/png;base64,aGVsbG8===",
        "aGVsbG8=",
        "aGVsbG8",
        "\naGVs\nbG8=\n",
    ],
)
def test_base64_in_every_spelling(text: str) -> None:
    """Case, padding, white space and percent escapes do not matter; neither does the missing ``data:``."""
    assert content(text) == b"hello"


def test_both_alphabets_are_read() -> None:
    """Base64 for URLs is base64."""
    data = bytes(range(256))
    for encoded in (base64.b64encode(data), base64.urlsafe_b64encode(data), base64.encodebytes(data)):
        assert decode_base64(encoded) == data
        assert decode_base64(encoded.decode()) == data
        assert decode_base64(memoryview(encoded.rstrip(b"=\n"))) == data
    assert decode_base64(base64.b64encode(data).replace(b"+", b"%2B").replace(b"/", b"%2f")) == data


@pytest.mark.parametrize("text", ["a", "aGVsbG8==a", "aa*a", "\u00e9", "aGVs bG8!", "%41GVs", "aGVsb", "<svg/>"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    """Foreign characters and missing ones are faults, not noise."""
    with pytest.raises(SourceError, match="not valid base64"):
        decode_base64(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data:image/png;base64", "no comma"),
        ("data:" + "x" * 5000 + ",aaaa", "no comma"),
        ("data:image/png;base64,", "no data"),
        ("data:image/png;base64, \n", "no data"),
        ("", "no data"),
        ("   ", "no data"),
        ("data:text/plain,hello", "must hold base64"),
        ("data:image/svg+xml;utf8,<svg/>", "must hold base64"),
        ("data:image/png;base64," + "a" * 2001, "larger than 1000 bytes"),
        ("a" * 2001, "larger than 1000 bytes"),
        ("ftp://example.com/a.png", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("http://user:secret@example.com/", "user name"),
        ("file://host/etc/passwd", "file: URL"),
        ("file:///a%00b", "file: URL"),
    ],
)
def test_what_is_no_source_is_refused(text: str, reason: str) -> None:
    """Each fault has a reason that says what to do."""
    with pytest.raises(SourceError, match=reason):
        read_source(text, max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///data/cat.png", "/data/cat.png"),
        ("FILE:///data/a%20b%C3%BC.png", "/data/a b\u00fc.png"),
        ("file://localhost/data/cat.png", "/data/cat.png"),
        ("file:///data/x/../../etc/passwd", "/etc/passwd"),
        ("/data/cat.png", "/data/cat.png"),
        ("/9k", "/9k"),
        ("cat.png", "cat.png"),
        ("./photos/cat", "./photos/cat"),
        ("../cat", "../cat"),
    ],
)
def test_paths(text: str, path: str) -> None:
    """A ``file:`` URL or a path is a file; whether it may be read is decided elsewhere."""
    assert read_source(text, max_bytes=LIMIT) == FileSource(path)


def test_jpeg_in_base64_is_no_path() -> None:
    """Base64 of a JPEG starts with a slash, and is still base64."""
    data = b"\xff\xd8\xff\xe0" + bytes(40)
    assert content(base64.b64encode(data).decode()) == data


def test_urls() -> None:
    """An http(s) URL is taken apart."""
    source = read_source(" HTTPS://Example.com/a.png ", max_bytes=LIMIT)
    assert isinstance(source, UrlSource)
    assert source.target.host == "example.com"


def test_large_text_is_understood_without_being_read() -> None:
    """Telling the form of 20 MB takes no time: it happens in the event loop."""
    large = 20_000_000
    texts = ["data:image/png;base64," + "A" * large, "A" * large, " " * large + "A", "data:" + " " * large]

    def seconds(text: str) -> float:
        start = time.thread_time()
        with contextlib.suppress(SourceError):
            read_source(text, max_bytes=large)
        return time.thread_time() - start

    for text in texts:
        assert best(partial(seconds, text), below=0.05) < 0.05


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an opened folder with a secret beside it, and every kind of link and file inside."""
    opened = tmp_path / "opened"
    (opened / "sub").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "opened-too").mkdir()
    (tmp_path / "opened-too" / "cat.png").write_bytes(b"secret")
    (opened / "cat.png").write_bytes(b"cat")
    (opened / "sub" / "dog.png").write_bytes(b"dog")
    (opened / "large.png").write_bytes(bytes(LIMIT + 1))
    (opened / "inside.png").symlink_to("sub/dog.png")
    (opened / "outside.png").symlink_to("../secret.png")
    (opened / "up").symlink_to("..")
    (opened / "loop").symlink_to("loop")
    (opened / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(opened / "pipe.png")
    return opened


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("cat.png", b"cat"),
        ("OPENED/cat.png", b"cat"),
        ("OPENED/./sub/../cat.png", b"cat"),
        ("sub/dog.png", b"dog"),
        ("inside.png", b"dog"),
        ("up/opened/cat.png", b"cat"),
    ],
)
def test_files_of_the_opened_folder_are_read(folder: Path, path: str, wanted: bytes) -> None:
    """Absolute and relative paths work, and so do links that stay inside."""
    assert read_local_file(folder, path.replace("OPENED", str(folder)), max_bytes=LIMIT) == wanted


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "OPENED/../secret.png",
        "outside.png",
        "up/secret.png",
        "OPENED-too/cat.png",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "zero.png",
        "pipe.png",
        "sub",
        "",
        ".",
        "missing.png",
        "loop",
        "cat.png\0.txt",
        "x" * 5000,
    ],
)
def test_nothing_else_is_read(folder: Path, path: str) -> None:
    """Other folders, links that lead out, devices and pipes are all the same missing file."""
    with pytest.raises(SourceError, match="no such image file"):
        read_local_file(folder, path.replace("OPENED", str(folder)), max_bytes=LIMIT)


def test_large_file_is_not_read(folder: Path) -> None:
    """A file beyond the limit is refused by its size."""
    with pytest.raises(SourceError, match="larger than 1000 bytes"):
        read_local_file(folder, "large.png", max_bytes=LIMIT)


def test_missing_folder_is_a_fault_of_the_picture(tmp_path: Path) -> None:
    """When the opened folder itself is gone, nothing is found in it."""
    with pytest.raises(SourceError, match="no such image file"):
        read_local_file(tmp_path / "gone", "cat.png", max_bytes=LIMIT)
