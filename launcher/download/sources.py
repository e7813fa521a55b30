"""Where a file comes from: reads the URIs of manifests, and moves them to a mirror where one is set.

Forms: ``hf://org/repo[@revision][:file]`` and NIM's ``hf://org/repo:revision?file=name``; ``ngc://org/[team/]model:version?file=name``;
``https://...``; ``s3://bucket/key``; ``file:///path`` or an absolute path. Pure text, no I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias
from urllib.parse import parse_qs, quote, unquote, urlsplit

from launcher.errors import ExitCode, LaunchError

MAIN: Final = "main"
_WORD: Final = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
_HF: Final = re.compile(
    rf"(?P<repository>{_WORD}/{_WORD})(?:@(?P<at>[^:?@]+))?(?::(?P<colon>[^?]+))?(?:\?file=(?P<query>.+))?\Z"
)
_NGC: Final = re.compile(
    rf"(?P<org>{_WORD})/(?:(?P<team>{_WORD})/)?(?P<model>{_WORD}):(?P<version>[^?/:@]+)(?:\?file=(?P<file>.+))?\Z"
)
# ":x" after a repository is a revision in NIM and a file elsewhere; a name that ends like a model's file is one.
_FILE_ENDINGS: Final = (
    ".gguf", ".safetensors", ".json", ".txt", ".jinja", ".model", ".bin", ".md", ".yaml", ".yml",
)  # fmt: skip
_ELSEWHERE: Final = {
    "gs": "copy the files to a folder or an https mirror, or use the bucket's S3 interface with AWS_ENDPOINT_URL",
    "modelscope": "use the same model at hf://",
}


@dataclass(frozen=True, slots=True)
class HubSource:
    """A file, or with ``file`` None a whole repository, on the Hugging Face hub."""

    repository: str
    revision: str
    file: str | None

    @property
    def canonical(self) -> str:
        """The URI in NIM's form, which is also what mirrors are laid out by."""
        return f"hf://{self.repository}:{self.revision}" + (f"?file={self.file}" if self.file else "")


@dataclass(frozen=True, slots=True)
class NgcSource:
    """A file, or with ``file`` None a whole model version, in NGC's registry."""

    org: str
    team: str | None
    model: str
    version: str
    file: str | None

    @property
    def repository(self) -> str:
        """The model's full name, ``org/team/model``."""
        return "/".join(part for part in (self.org, self.team, self.model) if part)

    @property
    def canonical(self) -> str:
        """The URI in NIM's form, which is also what mirrors are laid out by."""
        return f"ngc://{self.repository}:{self.version}" + (f"?file={self.file}" if self.file else "")


@dataclass(frozen=True, slots=True)
class WebSource:
    """One file at an http(s) address."""

    url: str

    @property
    def canonical(self) -> str:
        """The address."""
        return self.url


@dataclass(frozen=True, slots=True)
class S3Source:
    """One object of an S3 store."""

    bucket: str
    key: str

    @property
    def canonical(self) -> str:
        """The object's URI."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A file or folder of this machine; it is used where it lies and never copied."""

    path: Path

    @property
    def canonical(self) -> str:
        """The path as a URI."""
        return self.path.as_uri()


Source: TypeAlias = HubSource | NgcSource | WebSource | S3Source | LocalSource


def parse_source(uri: str) -> Source:
    """Read a URI.

    Raises:
        LaunchError: with ``BAD_SETTINGS``, naming what is wrong with it.
    """
    scheme, sign, rest = uri.strip().partition("://")
    if not sign:
        return _local(uri.strip(), uri)
    if any(letter.isspace() or not letter.isprintable() for letter in rest):
        raise _bad(uri, "it holds a blank or a control character")
    match scheme.lower():
        case "hf":
            return _hub(rest, uri)
        case "ngc":
            return _ngc(rest, uri)
        case "http" | "https":
            return _web(uri.strip(), uri)
        case "s3":
            return _s3(rest, uri)
        case "file":
            return _local(unquote(rest), uri)
        case other:
            raise _bad(uri, f"{other}:// is not supported", _ELSEWHERE.get(other, ""))


def mirrored(source: Source, base: str) -> Source:
    """Return where the mirror at ``base`` has the file: its NIM URI without the scheme, percent-encoded, as the name.

    That is NIM's layout: ``ngc://org/team/model:1?file=a.json`` under ``s3://bucket/`` is the object with the key
    ``org%2Fteam%2Fmodel%3A1%3Ffile%3Da.json``. A local path is no hub's file and stays what it is.
    """
    if not isinstance(source, HubSource | NgcSource) or base.startswith("ngc://"):
        return source
    name = quote(source.canonical.partition("://")[2], safe="")
    scheme, sign, rest = base.rstrip("/").partition("://")
    if not sign:
        return LocalSource(Path(base) / name)
    if scheme == "file":
        return LocalSource(Path(unquote(rest)) / name)
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        return S3Source(bucket, f"{prefix}/{name}" if prefix else name)
    if scheme == "jfrog":
        scheme = "https"
    return _web(f"{scheme}://{rest}/{name}", base)


def safe_name(name: str) -> str:
    """Return ``name`` if it stays inside the folder that it is put into: relative, no ``..``, no odd characters.

    Raises:
        LaunchError: it does not; names come from manifests and from servers.
    """
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and "\\" not in name and not name.startswith("/")
    if not parts or not plain or ".." in parts or len(name.encode()) > 1024:  # noqa: PLR2004 - a path's usual limit
        raise LaunchError(ExitCode.BAD_SETTINGS, f"the file name {name!r} leaves the folder that it belongs to")
    return "/".join(parts)


def _hub(rest: str, uri: str) -> HubSource:
    match = _HF.match(rest)
    if match is None:
        raise _bad(uri, "write hf://organisation/repository@revision:file")
    revision, file, colon = match["at"], match["query"], match["colon"]
    if colon is not None and (revision is not None or (file is None and colon.lower().endswith(_FILE_ENDINGS))):
        if file is not None:
            raise _bad(uri, "it names two files")
        file = colon
    elif colon is not None:
        revision = colon
    return HubSource(match["repository"], _revision(revision or MAIN, uri), safe_name(file) if file else None)


def _revision(revision: str, uri: str) -> str:
    if ".." in revision or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+-]*", revision):
        raise _bad(uri, f"{revision!r} is no revision")
    return revision


def _ngc(rest: str, uri: str) -> NgcSource:
    match = _NGC.match(rest)
    if match is None or ".." in rest:
        raise _bad(uri, "write ngc://organisation/team/model:version?file=name")
    file = safe_name(match["file"]) if match["file"] else None
    return NgcSource(match["org"], match["team"], match["model"], match["version"], file)


def _web(url: str, uri: str) -> WebSource:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _bad(uri, str(error)) from error
    if not host:
        raise _bad(uri, "it names no host")
    return WebSource(url)


def _s3(rest: str, uri: str) -> S3Source:
    bucket, _, key = rest.partition("/")
    if not bucket or not key:
        raise _bad(uri, "write s3://bucket/key")
    return S3Source(bucket, key)


def _local(path: str, uri: str) -> LocalSource:
    if not path.startswith("/"):
        raise _bad(uri, "it is neither a URI nor an absolute path")
    return LocalSource(Path(path))


def file_asked_for(source: Source) -> str | None:
    """Return the file that a URI names, or None where it names a whole repository."""
    match source:
        case HubSource() | NgcSource():
            return source.file
        case WebSource():
            query = parse_qs(urlsplit(source.url).query).get("file")
            return query[0] if query else PurePosixPath(urlsplit(source.url).path).name
        case S3Source():
            return PurePosixPath(source.key).name
        case LocalSource():
            return source.path.name


def _bad(uri: str, why: str, remedy: str = "") -> LaunchError:
    return LaunchError(ExitCode.BAD_SETTINGS, f"{_without_secrets(uri)} cannot be read: {why}", remedy)


def _without_secrets(uri: str) -> str:
    return re.sub(r"(?<=://)[^/@]*@", "", uri.partition("?X-")[0])
