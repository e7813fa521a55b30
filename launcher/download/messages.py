"""Addresses and errors as people see them: without passwords, without signatures, without object names of a library."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from urllib3.exceptions import ConnectTimeoutError, ReadTimeoutError


def host_of(url: str) -> str:
    """Return an address's host and port, for messages."""
    return urlsplit(url).netloc.rpartition("@")[2] or url


def shown(url: str) -> str:
    """Return an address without user, password and query, for messages and logs."""
    parts = urlsplit(url)
    return parts._replace(netloc=host_of(url), query="", fragment="").geturl()


def reason_of(error: BaseException) -> str:
    """Return why something failed: the system's words where they are at the bottom of it, else the library's."""
    for one in (error, error.__cause__, *error.args):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    if isinstance(error, TimeoutError | ReadTimeoutError | ConnectTimeoutError):
        return "no answer in time"
    # urllib3 puts its object in front: "HTTPSConnection(host='...', port=443): ".
    return re.sub(r"^\S*(?:Connection|Pool)\([^)]*\): ", "", str(error)) or type(error).__name__
