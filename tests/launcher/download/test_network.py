"""The way to the outside: proxies, certificates, keys that stay at home, redirects."""

from __future__ import annotations

import json
import logging
import re

import pytest
from pydantic import SecretStr

from launcher.cache.store import Cache
from launcher.download.access import Keys, Proxies, S3Access, Trust
from launcher.download.credentials import NoCredential, bearer, for_mirror
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.download.messages import shown
from launcher.download.network import Client
from launcher.errors import AccessError, LaunchError, NetworkError
from tests.launcher.download.conftest import Certificates, access, content
from tests.launcher.download.servers import Answer, FileServer, Proxy, Request, hub_and_storage

BODY = content(100_000, 8)


def one(url: str) -> list[FileRequest]:
    return [FileRequest("file.bin", f"{url}/file.bin")]


@pytest.fixture
def secure(certificates: Certificates):
    with FileServer({"/file.bin": BODY}) as server:
        server.use_tls(certificates.certificate, certificates.key)
        yield server


def test_a_company_authority_is_trusted_when_its_file_is_given(
    secure: FileServer, certificates: Certificates, cache: Cache
) -> None:
    """``SSL_CERT_FILE`` makes a server behind it reachable."""
    folder = fetch_workspace(one(secure.url), cache, access(trust=Trust(certificates.authority)))

    assert (folder / "file.bin").read_bytes() == BODY


@pytest.mark.parametrize("trust", [Trust(), Trust(native=True)])
def test_an_unknown_authority_is_named_with_what_helps(secure: FileServer, cache: Cache, trust: Trust) -> None:
    """It is not tried again: certificates do not change by waiting."""
    with pytest.raises(NetworkError, match=r"certificate of localhost:\d+ is not trusted") as caught:
        fetch_workspace(one(secure.url), cache, access(trust=trust))

    assert "SSL_CERT_FILE" in caught.value.remedy


def test_a_certificate_file_that_cannot_be_read_is_a_setting_to_correct(cache: Cache, tmp_path) -> None:
    """The path is in the message."""
    with pytest.raises(LaunchError, match=r"none\.pem"):
        fetch_workspace(one("https://localhost:1"), cache, access(trust=Trust(tmp_path / "none.pem")))


def test_https_goes_through_the_proxy(secure: FileServer, certificates: Certificates, cache: Cache) -> None:
    """By CONNECT, so that the proxy sees the host and nothing else."""
    with Proxy("dTpw") as proxy:
        proxies = Proxies(https=proxy.url.replace("://", "://u:p@"))
        folder = fetch_workspace(one(secure.url), cache, access(proxies=proxies, trust=Trust(certificates.authority)))

    assert (folder / "file.bin").read_bytes() == BODY
    assert set(proxy.targets) == {secure.name}
    assert set(proxy.authorizations) == {"Basic dTpw"}


def test_http_goes_through_the_proxy(cache: Cache) -> None:
    """Plain addresses have a variable of their own."""
    with FileServer({"/file.bin": BODY}) as server, Proxy() as proxy:
        folder = fetch_workspace(one(server.url), cache, access(proxies=Proxies(http=proxy.url)))

    assert (folder / "file.bin").read_bytes() == BODY
    assert set(proxy.targets) == {server.name}


def test_a_proxy_that_wants_a_password_is_named(secure: FileServer, cache: Cache) -> None:
    """Not the server behind it."""
    with Proxy("x") as proxy, pytest.raises(NetworkError, match=r"the proxy 127\.0\.0\.1:\d+ wants a password"):
        fetch_workspace(one(secure.url), cache, access(proxies=Proxies(https=proxy.url)))


def test_a_proxy_that_is_gone_is_named_with_the_host_that_it_stood_before(cache: Cache) -> None:
    """Both are needed to find the fault, and the proxy's password is not shown."""
    with pytest.raises(
        NetworkError, match=r"example\.com through the proxy 127\.0\.0\.1:9 cannot be reached"
    ) as caught:
        fetch_workspace(one("https://example.com"), cache, access(proxies=Proxies(https="http://u:secret@127.0.0.1:9")))

    assert "secret" not in str(caught.value) + caught.value.remedy


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_direct"),
    [
        ("https://hub.example/x", "", False),
        ("https://hub.example/x", "*", True),
        ("https://hub.example/x", "example", True),
        ("https://hub.example/x", ".example", True),
        ("https://hub.example/x", "*.example", True),
        ("https://hub.example/x", "other, HUB.example ", True),
        ("https://myhub.example/x", "hub.example", False),
        ("https://hub.example:8443/x", "hub.example:8443", True),
        ("https://hub.example/x", "hub.example:8443", False),
        ("https://hub.example/x", "hub.example:443", True),
        ("https://10.1.2.3/x", "10.0.0.0/8", True),
        ("https://10.1.2.3/x", "10.1.2.3", True),
        ("https://11.1.2.3/x", "10.0.0.0/8,localhost", False),
        ("https://[fd00::1]/x", "fd00::/8", True),
    ],
)
def test_no_proxy_lists_hosts_domains_addresses_and_networks(url: str, no_proxy: str, is_direct: bool) -> None:
    """The forms that are in use."""
    proxies = Proxies(https="proxy.example:3128", no_proxy=no_proxy)

    assert (proxies.proxy_for(url) is None) == is_direct
    assert is_direct or proxies.proxy_for(url) == "http://proxy.example:3128"


def test_a_key_follows_no_redirect_to_another_host() -> None:
    """Also not to another port of the same machine, nor through several hops."""
    with FileServer({"/file.bin": b"x"}) as stranger, FileServer() as home:
        home.routes = [
            (re.compile("^/start"), lambda _: Answer(302, {"Location": "/next"})),
            (re.compile("^/next"), lambda _: Answer(307, {"Location": f"{stranger.url}/file.bin"})),
        ]
        with Client(access()).open(f"{home.url}/start", bearer(home.url, SecretStr("key"))) as reply:
            assert reply.status == 200

    assert [request.headers.get("Authorization") for request in home.requests] == ["Bearer key", "Bearer key"]
    assert [request.headers.get("Authorization") for request in stranger.requests] == [None]


def test_redirects_never_lead_from_https_to_http(secure: FileServer, certificates: Certificates) -> None:
    """Nor to other schemes, nor in circles."""
    client = Client(access(trust=Trust(certificates.authority)))
    for target in ("http://localhost:1/", "file:///etc/passwd", "ftp://localhost/"):
        secure.routes = [(re.compile("^/"), lambda _, target=target: Answer(302, {"Location": target}))]
        with pytest.raises(NetworkError, match="not https"):
            client.open(f"{secure.url}/x", NoCredential())
    secure.routes = [(re.compile("^/"), lambda _: Answer(302, {"Location": "/x"}))]
    with pytest.raises(NetworkError, match="circles"):
        client.open(f"{secure.url}/x", NoCredential())


def test_user_and_password_of_an_address_become_a_header_and_are_not_shown() -> None:
    """``https://user:password@mirror/`` is a usual way to name a mirror."""
    bare, credential = for_mirror("https://user:p%40ss@mirror.example/x?y=1", None)

    assert bare == "https://mirror.example/x?y=1"
    assert credential.headers("GET", bare) == {"Authorization": "Basic dXNlcjpwQHNz"}
    assert credential.headers("GET", "https://other.example/") == {}
    assert shown("https://user:p@mirror.example/x?X-Amz-Signature=1") == "https://mirror.example/x"


def test_nothing_that_is_logged_or_raised_holds_a_key(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    """At the finest level, with all libraries, through a whole download and a refusal."""
    caplog.set_level(logging.DEBUG)
    keys = {"hf": "hf_verysecret", "ngc": "nvapi-verysecret", "s3": S3Access(SecretStr("AKIAverysecret"))}
    way = access(**keys)
    with hub_and_storage({"google/gemma": {"a.json": b"{}", "b.bin": BODY}}, key="hf_verysecret") as hub:
        way = access(hf_endpoint=hub.url, **keys)
        fetch_workspace([FileRequest("*", "hf://google/gemma")], cache, way)
        hub.key = "another"
        with pytest.raises(AccessError) as caught:
            fetch_workspace([FileRequest("*", "hf://google/other")], cache, way)

    assert "verysecret" not in caplog.text
    assert "X-Amz-Signature" not in caplog.text
    assert "verysecret" not in repr(way) + str(caught.value) + caught.value.remedy
    assert isinstance(way.keys, Keys)


def test_a_page_of_a_captive_portal_is_no_list_of_files(cache: Cache) -> None:
    """A proxy's login page with status 200 is not taken for the hub's answer."""
    with FileServer() as portal:
        portal.routes = [(re.compile("^/"), lambda _: Answer(200, {"Content-Type": "text/html"}, b"<html>log in"))]
        with pytest.raises(NetworkError, match="not JSON"):
            fetch_workspace([FileRequest("*", "hf://google/gemma")], cache, access(hf_endpoint=portal.url))
        portal.routes = [(re.compile("^/"), lambda _: Answer(body=json.dumps({"sha": "a" * 40}).encode()))]
        with pytest.raises(NetworkError, match="another form"):
            fetch_workspace([FileRequest("*", "hf://google/gemma")], cache, access(hf_endpoint=portal.url))


def test_a_hub_that_names_files_outside_the_folder_is_refused(cache: Cache) -> None:
    """Names come from the network; none of them leads out of the cache."""

    def tree(_: Request) -> Answer:
        return Answer(body=json.dumps([{"type": "file", "path": "../../../evil", "size": 1, "oid": "a" * 40}]).encode())

    with FileServer() as hub:
        hub.routes = [
            (re.compile("/revision/"), lambda _: Answer(body=json.dumps({"sha": "a" * 40}).encode())),
            (re.compile("/tree/"), tree),
        ]
        with pytest.raises(LaunchError, match="leaves the folder"):
            fetch_workspace([FileRequest("*", "hf://google/gemma")], cache, access(hf_endpoint=hub.url))
