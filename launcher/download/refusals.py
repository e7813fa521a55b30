"""Says what a server's refusal means: a key is missing or wrong, a licence was not accepted, there is no such file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from launcher.download.messages import host_of
from launcher.download.network import Reply, TransientError
from launcher.errors import AccessError, LaunchError, LicenceGateError, NetworkError, NotFoundError


class Kind(StrEnum):
    """Who answers, since each says things its own way."""

    HUB = "hub"
    NGC = "ngc"
    S3 = "s3"
    WEB = "web"
    MIRROR = "mirror"


@dataclass(frozen=True, slots=True)
class Subject:
    """What was asked for.

    Attributes:
        name: repository or address, for messages.
        has_key: whether a key was sent.
        page: where people accept the licence; empty if there is none.
    """

    kind: Kind
    name: str
    has_key: bool
    page: str = ""


def refusal(subject: Subject, reply: Reply) -> LaunchError | TransientError:
    """Return the error for a reply that is no success."""
    match subject.kind:
        case Kind.HUB:
            return _hub(subject, reply)
        case Kind.S3:
            return _s3(subject, reply)
        case _:
            return _plain(subject, reply, _VARIABLES[subject.kind])


_VARIABLES = {Kind.NGC: "NGC_API_KEY", Kind.WEB: "the address", Kind.MIRROR: "NIM_HTTPS_CREDENTIAL"}


def _hub(subject: Subject, reply: Reply) -> LaunchError | TransientError:
    code = reply.headers.get("X-Error-Code", "")
    said = reply.headers.get("X-Error-Message", "")
    if code == "GatedRepo":
        key = "with the account that HF_TOKEN belongs to" if subject.has_key else "and set HF_TOKEN to a token"
        return LicenceGateError(
            f"{subject.name} is given only to accounts that accepted its licence",
            f"accept it at {subject.page} {key}, then start again",
        )
    if reply.status == 401 and said.startswith("Invalid credentials"):  # noqa: PLR2004 - HTTP's own number
        return AccessError(f"{host_of(reply.url)} does not accept HF_TOKEN", "make a new token, or unset HF_TOKEN")
    if code == "RevisionNotFound":
        return NotFoundError(f"{subject.name} has no such revision", "check the part after @")
    if code == "EntryNotFound":
        return NotFoundError(f"{subject.name} does not exist", f"see the list of files at {subject.page}")
    if code == "RepoNotFound" or (reply.status == 401 and not subject.has_key):  # noqa: PLR2004 - as above
        hint = "or HF_TOKEN's account may not see it" if subject.has_key else "or it is private: set HF_TOKEN"
        return NotFoundError(f"there is no {subject.name}", f"check the name, {hint}")
    return _plain(subject, reply, "HF_TOKEN")


def _s3(subject: Subject, reply: Reply) -> LaunchError | TransientError:
    text = reply.text()
    code = _tag(text, "Code")
    region = reply.headers.get("x-amz-bucket-region")
    if region and code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect"):
        return AccessError(f"{subject.name} lies in another region", f"set AWS_REGION={region}")
    if code in ("NoSuchKey", "NoSuchBucket"):
        return NotFoundError(f"{subject.name} does not exist", "check NIM_REPOSITORY_OVERRIDE and what was mirrored")
    if code in ("SlowDown", "InternalError", "ServiceUnavailable"):
        return TransientError(f"{host_of(reply.url)} answered {code}")
    if code == "RequestTimeTooSkewed":
        return AccessError(f"{host_of(reply.url)} says that this machine's clock is wrong", "set the clock")
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"):
        return AccessError(f"{host_of(reply.url)} does not accept the key: {code}", "check the AWS_* variables")
    return _plain(subject, reply, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")


def _plain(subject: Subject, reply: Reply, variable: str) -> LaunchError | TransientError:
    where = f"{subject.name} ({host_of(reply.url)}, status {reply.status})"
    match reply.status:
        case 401 | 407:
            problem = "the key was not accepted for" if subject.has_key else "a key is wanted for"
            return AccessError(f"{problem} {where}", f"{'check' if subject.has_key else 'set'} {variable}")
        case 402 | 451:
            return LicenceGateError(f"the source wants its terms accepted for {where}", "accept them on its web page")
        case 403:
            remedy = f"check what {variable} may read" if subject.has_key else f"set {variable}"
            return AccessError(f"access is denied for {where}", remedy)
        case 404 | 410:
            return NotFoundError(f"there is no {where}", "check the name, or whether the key may see it")
        case status if status >= 500:  # noqa: PLR2004 - HTTP's classes
            return TransientError(f"{host_of(reply.url)} answered {status}")
        case _:
            return NetworkError(f"an answer that makes no sense for {where}", "check the address and the proxy")


def _tag(text: str, name: str) -> str:
    found = re.search(rf"<{name}>([^<]{{1,100}})</{name}>", text)
    return found[1] if found else ""
