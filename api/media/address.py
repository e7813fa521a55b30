"""Which network addresses a picture may be fetched from. Pure tables and look-ups; no name is resolved here.

Written out instead of ``ipaddress.is_global``, whose answer depends on the Python version and lets translated
addresses through. Fact: IANA's special-purpose registries for IPv4 and IPv6, as of 2026.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*texts: str) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_METADATA: Final = _networks(
    "169.254.0.0/16",  # link-local: AWS, Azure, Google Cloud, DigitalOcean and others
    "168.63.129.16/32",  # Azure's host agent, a public address that is answered inside
    "100.100.100.200/32",  # Alibaba Cloud
    "192.0.0.192/32",  # Oracle Cloud
    "fd00:ec2::/32",  # AWS over IPv6
    "fd20:ce::/32",  # Google Cloud over IPv6
    "fe80::/10",  # link-local
)
_TRANSLATED: Final = _networks(
    "::/96",  # unspecified, loopback, and IPv4-compatible
    "::ffff:0:0/96",  # IPv4-mapped
    "::ffff:0:0:0/96",  # IPv4-translated
    "64:ff9b::/96",  # NAT64
    "64:ff9b:1::/48",  # NAT64 of one network
    "2001::/32",  # Teredo
    "2002::/16",  # 6to4
)
_LOOPBACK_6: Final = ipaddress.IPv6Address("::1")
_NOWHERE: Final = _networks(
    "0.0.0.0/8",  # "this host": Linux takes 0.0.0.0 for loopback
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    "ff00::/8",  # multicast
)
_LOCAL_4: Final = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",  # carrier-grade NAT
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",  # documentation
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
)
_GLOBAL_6: Final = _networks("2000::/3")
"""The only part of IPv6 that is given out for public use; everything else is refused without naming it."""
_LOCAL_6: Final = _networks(
    "2001::/23",  # protocol assignments
    "2001:db8::/32",  # documentation
    "3fff::/20",  # documentation
)


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to a host on the public internet, and to nothing nearer."""
    if _is_in(address, _METADATA) or _is_in(address, _TRANSLATED) or _is_in(address, _NOWHERE):
        return False
    if address.version == 4:  # noqa: PLR2004 - the protocol's number
        return not _is_in(address, _LOCAL_4)
    return _is_in(address, _GLOBAL_6) and not _is_in(address, _LOCAL_6)


def is_usable_by_name(address: Address) -> bool:
    """Tell whether a host that the operator listed by name may have an address.

    Private networks and loopback are fine. Cloud metadata, link-local, multicast and translated addresses are not:
    whoever controls the name's DNS would reach through it what the operator did not mean.
    """
    if address == _LOOPBACK_6:
        return True
    return not (_is_in(address, _METADATA) or _is_in(address, _TRANSLATED) or _is_in(address, _NOWHERE))


def _is_in(address: Address, networks: Sequence[_Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)
