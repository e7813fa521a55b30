"""The rules behind what is fetched: address tables, and parsers that meet any text or bytes with a clean refusal."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.media.address import is_public, is_usable_by_name
from api.media.errors import SourceError
from api.media.fetch_policy import FetchPolicy, Trust
from api.media.fetch_response import Inflater, ResponseParser
from api.media.fetch_target import parse_target
from api.media.source import read_source
from tests.fakes.hostile_urls import FORMS, LOCATIONS

SPECIAL = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32", "::/128", "::1/128", "::/96", "::ffff:0:0/96",
    "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:2::/48", "2001:db8::/32",
    "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "4000::/3",
]  # fmt: skip

PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.0", "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255",
    "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15", "2001:4860:4860::8888",
    "2400:cb00::1", "2606:4700:4700::1111", "2620:fe::fe", "2a00:1450::1",
]  # fmt: skip


@pytest.mark.parametrize("network", SPECIAL)
def test_no_address_of_a_special_network_is_public(network: str) -> None:
    """First, last and middle address of each are refused."""
    parsed = ipaddress.ip_network(network)
    for address in (parsed[0], parsed[-1], parsed[parsed.num_addresses // 2]):
        assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    """The neighbours of special networks, and well-known services, can be fetched from."""
    assert is_public(ipaddress.ip_address(address))
    assert is_usable_by_name(ipaddress.ip_address(address))


@given(st.ip_addresses())
def test_nothing_is_public_that_python_calls_special(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """The tables are at least as strict as the standard library's."""
    if is_public(address):
        assert address.is_global
        assert not any((address.is_multicast, address.is_private, address.is_loopback, address.is_link_local))
        assert is_usable_by_name(address)


PIECES = [form.replace("PORT", "80") for form in (*FORMS, *LOCATIONS)]
URLS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(PIECES),
    st.builds(
        lambda base, at, length, middle: base[:at] + middle + base[at + length :],
        st.sampled_from(PIECES),
        st.integers(0, 40),
        st.integers(0, 4),
        st.one_of(
            st.sampled_from(["@", "\\", "#", "%00", "[", "]", ":", "\t", "//", ".", "\u3002", "\u00ad"]),
            st.text(max_size=4),
        ),
    ),
)


@given(URLS)
def test_any_text_is_a_safe_target_or_refused(text: str) -> None:
    """Whatever the text, either it is refused cleanly or its host is a name or a public address."""
    try:
        target = parse_target(text)
        trust = FetchPolicy(ports=range(1, 65_536)).check(target)
    except SourceError:
        return
    assert trust is Trust.PUBLIC
    assert target.address is None or is_public(target.address)
    assert target.host.isascii()
    assert not set(target.host_header + target.path) & set("\r\n \t\\@\x00") - {"@"}
    assert "@" not in target.host_header
    # What is sent means the same when it is read again.
    assert parse_target(f"{target.scheme}://{target.host_header}{target.path}") == target


@pytest.mark.parametrize("host", ["0..", "..", "a..b", "127.0.0.1..", ".example"])
def test_host_with_an_empty_label_is_refused(host: str) -> None:
    """Two readers could take such a host for a name and for an address."""
    with pytest.raises(SourceError):
        parse_target(f"http://{host}/")


@given(URLS, URLS)
def test_any_redirect_is_a_safe_target_or_refused(start: str, location: str) -> None:
    """A location leads to a target that was parsed like any other, or nowhere."""
    try:
        target = parse_target(start).redirect(location)
    except SourceError:
        return
    assert parse_target(f"{target.scheme}://{target.host_header}{target.path}") == target


@given(URLS)
def test_any_text_is_a_source_or_refused(text: str) -> None:
    """Understanding a picture's source never fails in another way."""
    try:
        read_source(text, max_bytes=100)
    except SourceError as error:
        assert error.message[:1].islower()
        assert not error.message.endswith(".")


FRAGMENTS = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", b"\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Upgrade: x\r\nConnection: upgrade\r\n", b"5\r\n",
    b"hello", b"0\r\n\r\n",
]  # fmt: skip


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(FRAGMENTS)), max_size=8))
def test_any_answer_is_a_body_or_refused(pieces: list[bytes]) -> None:
    """Bytes of a server are an answer or a clean refusal, and never more body than bytes."""
    parser = ResponseParser()
    body = b""
    try:
        for piece in pieces:
            body += parser.feed(piece)
        parser.end()
    except SourceError:
        pass
    assert len(body) <= sum(map(len, pieces))


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "identity", None, "br", ""]))
def test_any_compressed_data_is_inflated_or_refused(data: bytes, encoding: str | None) -> None:
    """Damaged compression never fails in another way."""
    try:
        inflater = Inflater(encoding)
        for _ in inflater.inflate(data):
            pass
        inflater.end()
    except SourceError:
        pass
