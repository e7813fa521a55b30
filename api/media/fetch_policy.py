"""Which hosts, ports and addresses pictures may be fetched from: the operator's list, and the public internet.

Pure: it judges a parsed URL, and then the addresses that its name was resolved to. Every redirect is judged again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Self

from api.media.address import Address, is_public, is_usable_by_name
from api.media.errors import SourceError
from api.media.fetch_target import FetchTarget, parse_target

ANY: Final = "*"
_SUBDOMAINS: Final = "*."

_INSTEAD: Final = "send the image as a data: URL instead"
_NOT_PUBLIC: Final = f"the URL's host cannot be resolved to a public address; {_INSTEAD}"
"""One text for unknown names and for names of this network: a caller must not learn which names exist here."""


class Trust(Enum):
    """Which addresses a host may have."""

    PUBLIC = auto()
    """Not listed: public ones only."""
    LISTED_NAME = auto()
    """Listed by name: private ones, too."""
    LISTED_ADDRESS = auto()
    """Listed as the address itself: that one, whatever it is."""


@dataclass(frozen=True, slots=True)
class HostRule:
    """One entry of the list of hosts: ``host``, ``host:port``, ``*.domain`` for its subdomains, or ``*`` for any."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one entry.

        Raises:
            ValueError: when it is none.
        """
        name, colon, digits = text.rpartition(":")
        has_port = bool(colon) and digits.isdecimal() and not (":" in name and not name.endswith("]"))
        host, port = (name, int(digits)) if has_port else (text, None)
        if host == ANY:
            return cls(ANY, port)
        prefix = _SUBDOMAINS if host.startswith(_SUBDOMAINS) else ""
        bare = host.removeprefix(prefix)
        try:
            target = parse_target(f"http://[{bare}]/" if bare.count(":") > 1 and "[" not in bare else f"http://{bare}/")
        except SourceError as error:
            msg = f"{text!r} is not a host, host:port, *.domain or *"
            raise ValueError(msg) from error
        if target.path != "/" or ANY in target.host or (port is not None and not 0 < port <= 65_535):  # noqa: PLR2004
            msg = f"{text!r} is not a host, host:port, *.domain or *"
            raise ValueError(msg)
        return cls(prefix + target.host, port)

    def covers(self, host: str) -> bool:
        """Tell whether the entry means a host."""
        if self.host.startswith(_SUBDOMAINS):
            return host.endswith(self.host[1:])
        return self.host in {ANY, host}


class FetchPolicy:
    """The operator's decisions about where pictures come from."""

    def __init__(self, allowed_hosts: Iterable[str] = (), ports: Iterable[int] = (80, 443)) -> None:
        """Read the list of hosts (empty: any public host) and the ports that need no mention in it.

        Raises:
            ValueError: for an entry that names no host.
        """
        self._rules = tuple(HostRule.parse(text) for text in allowed_hosts)
        self._ports = frozenset(ports)

    def check(self, target: FetchTarget) -> Trust:
        """Judge host and port before anything is resolved.

        Raises:
            SourceError: when either is not allowed, or the host is an address that is not.
        """
        rules = [rule for rule in self._rules if rule.covers(target.host)]
        if self._rules and not rules:
            raise SourceError(f"this server does not fetch images from the URL's host; {_INSTEAD}")
        rules = [rule for rule in rules if rule.port == target.port or (not rule.port and target.port in self._ports)]
        if not rules and (self._rules or target.port not in self._ports):
            allowed = ", ".join(str(port) for port in sorted(self._ports))
            raise SourceError(f"this server does not fetch images from port {target.port} (only {allowed}); {_INSTEAD}")
        trust = self._trust(target, rules)
        if target.address is not None:
            self.pin(target, trust, [str(target.address)])
        return trust

    def pin(self, target: FetchTarget, trust: Trust, addresses: Sequence[str]) -> tuple[str, ...]:
        """Return the addresses to connect to, in order, given what the name was resolved to.

        Raises:
            SourceError: when there is none, or any of them is not allowed: a name that has both is up to no good.
        """
        parsed = [_parse(text) for text in addresses]
        if not parsed or not all(address is not None and _suits(address, trust) for address in parsed):
            raise SourceError(_NOT_PUBLIC if target.address is None else f"the URL's address is not public; {_INSTEAD}")
        return tuple(str(address) for address in parsed)

    @staticmethod
    def _trust(target: FetchTarget, rules: Sequence[HostRule]) -> Trust:
        if not any(rule.host != ANY for rule in rules):
            return Trust.PUBLIC
        return Trust.LISTED_NAME if target.address is None else Trust.LISTED_ADDRESS


def _parse(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _suits(address: Address, trust: Trust) -> bool:
    if trust is Trust.LISTED_ADDRESS:
        return True
    return is_usable_by_name(address) if trust is Trust.LISTED_NAME else is_public(address)
