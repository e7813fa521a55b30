"""Which secret goes with which request: each knows the one origin that it belongs to and answers no other.

A redirect to another host asks again and gets nothing, so no key ever reaches a storage network or a stranger.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from launcher.download.access import S3Access

_EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Credential(Protocol):
    """Gives the headers that prove who asks."""

    def headers(self, method: str, url: str) -> dict[str, str]:
        """Return the headers for this request; none for an origin that is not its own."""


class NoCredential:
    """For sources that want none."""

    def headers(self, method: str, url: str) -> dict[str, str]:  # noqa: ARG002 - the protocol's signature
        """Return no headers."""
        return {}


def origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port; requests with equal origins reach the same server."""
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme.lower())


@dataclass(frozen=True, slots=True)
class HeaderCredential:
    """An ``Authorization`` header for one origin, e.g. a bearer token."""

    home: str
    authorization: SecretStr

    def headers(self, method: str, url: str) -> dict[str, str]:  # noqa: ARG002 - the protocol's signature
        """Return the header if ``url`` is at home."""
        return {"Authorization": self.authorization.get_secret_value()} if origin(url) == origin(self.home) else {}


def bearer(home: str, token: SecretStr | None) -> Credential:
    """Return the credential of a bearer token; without a token, none."""
    return HeaderCredential(home, SecretStr(f"Bearer {token.get_secret_value()}")) if token else NoCredential()


def basic(home: str, user: str, password: SecretStr) -> Credential:
    """Return the credential of a user name and a password."""
    pair = f"{user}:{password.get_secret_value()}".encode()
    return HeaderCredential(home, SecretStr(f"Basic {base64.b64encode(pair).decode()}"))


def for_mirror(url: str, credential: SecretStr | None) -> tuple[str, Credential]:
    """Return the address without user and password, and the credential: theirs, or the mirror's own.

    ``credential`` is the whole header value (``Basic ...``) or a bare token.
    """
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.username:
        return bare, basic(bare, unquote(parts.username), SecretStr(unquote(parts.password or "")))
    if credential and " " in credential.get_secret_value():
        return bare, HeaderCredential(bare, credential)
    return bare, bearer(bare, credential)


@dataclass(frozen=True, slots=True)
class S3Credential:
    """Signs requests to one S3 store with AWS Signature Version 4, in headers, so no address carries a signature."""

    home: str
    access: S3Access
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def headers(self, method: str, url: str) -> dict[str, str]:
        """Return the signed headers if ``url`` is this store's and there are keys."""
        return self.signed(method, url, _EMPTY_SHA256)

    def signed(self, method: str, url: str, payload_sha256: str) -> dict[str, str]:
        """Return the headers for a request with a body of this SHA-256, or ``UNSIGNED``."""
        key, secret = self.access.access_key_id, self.access.secret_access_key
        if key is None or secret is None or origin(url) != origin(self.home):
            return {}
        stamp = self.now().strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": urlsplit(url).netloc, "x-amz-content-sha256": payload_sha256, "x-amz-date": stamp}
        if self.access.session_token:
            headers["x-amz-security-token"] = self.access.session_token.get_secret_value()
        scope = f"{stamp[:8]}/{self.access.region}/s3/aws4_request"
        canonical = canonical_request(method, url, headers, payload_sha256)
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(self._key(secret, stamp[:8]), to_sign.encode(), hashlib.sha256).hexdigest()
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={key.get_secret_value()}/{scope}, "
            f"SignedHeaders={';'.join(sorted(headers))}, Signature={signature}"
        )
        del headers["host"]  # the HTTP client sends it
        return headers

    def _key(self, secret: SecretStr, day: str) -> bytes:
        key = f"AWS4{secret.get_secret_value()}".encode()
        for part in (day, self.access.region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key


def canonical_request(method: str, url: str, headers: Mapping[str, str], payload_sha256: str) -> str:
    """Return a request in the form that Signature Version 4 signs; ``headers`` have lower-case names."""
    parts = urlsplit(url)
    pairs = [pair.partition("=") for pair in parts.query.split("&") if pair]
    query = "&".join(sorted(f"{quote(unquote(n), safe='-_.~')}={quote(unquote(v), safe='-_.~')}" for n, _, v in pairs))
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)]
    return "\n".join([method, parts.path or "/", query, *lines, "", ";".join(sorted(headers)), payload_sha256])


def s3_url(access: S3Access, bucket: str, key: str) -> str:
    """Return an object's address: below the bucket's own host on AWS, path-style elsewhere."""
    name = quote(key, safe="/-_.~")
    if access.endpoint:
        return f"{access.endpoint.rstrip('/')}/{bucket}/{name}"
    is_host_name = "." not in bucket and "_" not in bucket and bucket == bucket.lower()
    host = f"s3.{access.region}.amazonaws.com"
    return f"https://{bucket}.{host}/{name}" if is_host_name else f"https://{host}/{bucket}/{name}"
