"""The one place where a URL is taken apart. What is connected to, sent as Host and checked all come from its result.

The parser is the URL standard's (the one that pydantic carries): decimal, octal, hexadecimal and full-width spellings
of an address come out as the address. What only lenient readers accept - backslashes, control characters, missing
slashes, a user name - is refused before it, so that no two readers can understand a URL differently.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from pydantic_core import Url, ValidationError

from api.media.address import Address
from api.media.errors import SourceError

MAX_URL_LENGTH: Final = 8192
DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_START: Final = re.compile(r"https?://[^/?#]", re.IGNORECASE)
_SUSPICIOUS: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_SENDABLE: Final = re.compile(r"/[\x21-\x7e]*\Z")


@dataclass(frozen=True, slots=True)
class FetchTarget:
    """One URL, understood once. ``host`` is ASCII, lower case, without brackets and without a final dot."""

    scheme: str
    host: str
    port: int
    path: str
    """Path and query as they are sent."""
    address: Address | None
    """The host, when it is an address rather than a name."""

    @property
    def host_header(self) -> str:
        """The value of ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "https"

    def redirect(self, location: str) -> FetchTarget:
        """Return where a ``Location`` header leads from here.

        Raises:
            SourceError: when it is no http(s) URL.
        """
        if _SUSPICIOUS.search(location):
            raise SourceError("that is not valid")
        if _SCHEME.match(location):
            text = location
        elif location.startswith("//"):
            text = f"{self.scheme}:{location}"
        else:
            path, _, _ = self.path.partition("?")
            base = "" if location.startswith("/") else path if location.startswith(("?", "#")) else _folder(path)
            text = f"{self.scheme}://{self.host_header}{base}{location}"
        return parse_target(text)


def parse_target(text: str) -> FetchTarget:
    """Take a URL apart.

    Raises:
        SourceError: when it is not a plain http(s) URL.
    """
    if len(text) > MAX_URL_LENGTH:
        raise SourceError(f"the URL is longer than {MAX_URL_LENGTH} characters")
    if _SUSPICIOUS.search(text):
        raise SourceError("the URL holds a backslash or a control character; percent-encode it")
    if not _START.match(text):
        raise SourceError("the URL must start with http:// or https:// and a host")
    try:
        url = Url(text)
    except ValidationError as error:
        raise SourceError("the URL is not valid") from error
    if url.username is not None or url.password is not None:
        raise SourceError("the URL must not hold a user name or password")
    path = (url.path or "/") + (f"?{url.query}" if url.query is not None else "")
    host = (url.host or "").removesuffix(".")
    # An empty label would be read differently with and without its dots: "0.." is a name, "0." an address.
    has_empty_label = not all(host.split("."))
    if url.scheme not in DEFAULT_PORTS or has_empty_label or not url.port or not _SENDABLE.match(path):
        raise SourceError("the URL is not valid")
    address = _address(host)
    return FetchTarget(url.scheme, host if address is None else str(address), url.port, path, address)


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _folder(path: str) -> str:
    return path[: path.rfind("/") + 1]
