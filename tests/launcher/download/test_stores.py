"""NGC, S3 stores and mirrors: their addresses, keys and refusals, and a mirror filled and used without any hub."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from pydantic import SecretStr

from launcher.cache.store import Cache
from launcher.download.access import S3Access
from launcher.download.credentials import S3Credential, s3_url
from launcher.download.fetch import FileRequest, fetch_workspace
from launcher.download.locations import Locations
from launcher.download.mirror import mirror_files
from launcher.download.network import Client
from launcher.download.retry import Pace
from launcher.download.sources import parse_source
from launcher.errors import AccessError, LaunchError, LicenceGateError, NotFoundError
from tests.launcher.download.conftest import Seen, access, content
from tests.launcher.download.servers import Answer, FileServer, Request, hub_and_storage, ranged

DATA = Path(__file__).parents[2] / "data"
BODY = content(200_000, 9)
NGC_MODEL = "nim/google/gemma-4-26b-a4b-it"
NGC_FILES = "/v2/org/nim/team/google/models/gemma-4-26b-a4b-it/versions/1.0+fp8/files"


class Ngc(FileServer):
    """NGC's registry and login; ``key`` is wanted for everything unless it is empty."""

    def __init__(self, files: dict[str, bytes], key: str = "") -> None:
        super().__init__()
        self.model = files
        self.key = key
        self.routes = [
            (re.compile("^/token"), self._login),
            (re.compile("/files$"), self._list),
            (re.compile("/files/"), self._send),
        ]

    def _login(self, request: Request) -> Answer:
        pair = base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        if pair != f"$oauthtoken:{self.key}":
            return Answer(401)
        return Answer(body=json.dumps({"token": "short-lived"}).encode())

    def _refused(self, request: Request) -> Answer | None:
        given = request.headers.get("Authorization")
        if self.key and given not in ("Bearer short-lived", f"Bearer {self.key}"):
            return Answer(401 if given is None else 403)
        return None

    def _list(self, request: Request) -> Answer:
        files = [{"path": name, "sizeInBytes": len(body)} for name, body in self.model.items()]
        page = {"modelFiles": files, "paginationInfo": {"index": 0, "totalPages": 1}}
        return self._refused(request) or Answer(body=json.dumps(page).encode())

    def _send(self, request: Request) -> Answer:
        body = self.model.get(unquote(request.path.partition("/files/")[2]))
        return self._refused(request) or (Answer(404) if body is None else ranged(request, body))


def test_a_model_of_ngc_is_fetched_by_its_list(cache: Cache) -> None:
    """Names come from NGC; the layout in the cache is NIM's."""
    with Ngc({"config.json": b"{}", "model.safetensors": BODY}) as ngc:
        folder = fetch_workspace([FileRequest("*", f"ngc://{NGC_MODEL}:1.0+fp8")], cache, access(ngc_endpoint=ngc.url))

    assert (folder / "model.safetensors").read_bytes() == BODY
    snapshot = cache.root / "ngc/hub/models--nim--google--gemma-4-26b-a4b-it/snapshots/1.0+fp8"
    assert (snapshot / "config.json").read_bytes() == b"{}"
    assert {request.path for request in ngc.requests} >= {unquote(f"{NGC_FILES}/config.json").replace("+", "%2B")}


@pytest.mark.parametrize(("key", "logins"), [("nvapi-1234", 0), ("b2xkIGtleQ", 1)])
def test_new_keys_are_tokens_and_old_keys_are_exchanged_for_one(cache: Cache, key: str, logins: int) -> None:
    """One login serves all files."""
    wanted = [
        FileRequest(name, f"ngc://{NGC_MODEL}:1.0+fp8?file={name}") for name in ("config.json", "model.safetensors")
    ]
    with Ngc({"config.json": b"{}", "model.safetensors": BODY}, key) as ngc:
        way = access(ngc_endpoint=ngc.url, ngc_login=ngc.url, ngc=key)
        folder = fetch_workspace(wanted, cache, way)

    assert (folder / "model.safetensors").read_bytes() == BODY
    assert len(ngc.requests_for("/token")) == logins


def test_ngc_says_whether_a_key_is_missing_or_wrong(cache: Cache) -> None:
    """The remedy names the variable."""
    wanted = [FileRequest("config.json", f"ngc://{NGC_MODEL}:1.0+fp8?file=config.json")]
    with Ngc({"config.json": b"{}"}, "nvapi-right") as ngc:
        with pytest.raises(AccessError, match="a key is wanted") as missing:
            fetch_workspace(wanted, cache, access(ngc_endpoint=ngc.url))
        with pytest.raises(AccessError, match="access is denied") as wrong:
            fetch_workspace(wanted, cache, access(ngc_endpoint=ngc.url, ngc="nvapi-wrong"))
        with pytest.raises(AccessError, match="NGC's login"):
            fetch_workspace(wanted, cache, access(ngc_endpoint=ngc.url, ngc_login=ngc.url, ngc="wrong"))
        ngc.routes.insert(0, (re.compile("^/v2"), lambda _: Answer(451)))
        with pytest.raises(LicenceGateError):
            fetch_workspace(wanted, cache, access(ngc_endpoint=ngc.url))

    assert "set NGC_API_KEY" in missing.value.remedy
    assert "NGC_API_KEY" in wrong.value.remedy


def test_signatures_are_those_of_the_stores_own_library() -> None:
    """The expected ones were made with botocore 1.x's S3SigV4Auth for the same keys, times and addresses."""
    secret = SecretStr("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    for case in json.loads((DATA / "s3" / "signatures.json").read_text()):
        token = SecretStr(case["token"]) if case["token"] else None
        keys = S3Access(SecretStr("AKIDEXAMPLE"), secret, token, case["region"])
        credential = S3Credential(case["url"], keys, lambda: datetime(2026, 11, 21, 10, tzinfo=UTC))

        headers = credential.signed(case["method"], case["url"], case["payload"])

        assert headers["Authorization"] == case["authorization"]
        assert headers.get("x-amz-security-token") == case["token"]


def test_signatures_stay_with_their_store() -> None:
    """A redirect to another host is not signed."""
    keys = S3Access(SecretStr("a"), SecretStr("b"))

    assert S3Credential("https://s3.example/b/k", keys).headers("GET", "https://evil.example/b/k") == {}
    assert S3Credential("https://s3.example/b/k", S3Access()).headers("GET", "https://s3.example/b/k") == {}


@pytest.mark.parametrize(
    ("bucket", "endpoint", "url"),
    [
        ("models", None, "https://models.s3.eu-west-1.amazonaws.com/a%252Fb/c%20d"),
        ("my_models", None, "https://s3.eu-west-1.amazonaws.com/my_models/a%252Fb/c%20d"),
        ("my.models", None, "https://s3.eu-west-1.amazonaws.com/my.models/a%252Fb/c%20d"),
        ("models", "http://minio:9000/", "http://minio:9000/models/a%252Fb/c%20d"),
    ],
)
def test_addresses_of_objects(bucket: str, endpoint: str | None, url: str) -> None:
    """Below the bucket's host on AWS where its name can be one, else path-style; a percent sign is part of the key."""
    assert s3_url(S3Access(region="eu-west-1", endpoint=endpoint), bucket, "a%2Fb/c d") == url


class Store(FileServer):
    """An S3 store: objects by path, upload in one go or in parts, keys wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, bytes] = {}
        self.bodies: dict[int, bytes] = {}

    def answer(self, request: Request) -> Answer:
        if "Credential=key/" not in request.headers.get("Authorization", ""):
            self.requests.append(request)
            return Answer(403, body=b"<Error><Code>InvalidAccessKeyId</Code></Error>")
        if request.method == "PUT":
            self.requests.append(request)
            part = re.search(r"partNumber=(\d+)", request.query)
            (self.parts if part else self.files)[part[1] if part else unquote(request.path)] = request.body
            return Answer(200, {"ETag": f'"{len(request.body)}"'})
        if request.method == "POST":
            self.requests.append(request)
            if request.query == "uploads":
                return Answer(body=b"<X><UploadId>u1</UploadId></X>")
            self.files[unquote(request.path)] = b"".join(self.parts[key] for key in sorted(self.parts, key=int))
            return Answer(body=b"<CompleteMultipartUploadResult/>")
        answer = super().answer(request)
        return answer if answer.status != 404 else Answer(404, body=b"<Error><Code>NoSuchKey</Code></Error>")


KEYS = S3Access(SecretStr("key"), SecretStr("secret"))
MODEL = "google/gemma-4-31B-it"
FILES = {"config.json": b'{"a": 1}', "model-00001-of-00001.safetensors": BODY, "README.md": b"read"}
CHECKPOINT = [FileRequest("*", f"hf://{MODEL}:main", include=("*.safetensors", "*.json"))]


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as store:
        yield store


def s3_way(store: Store, **values: object):
    keys = S3Access(KEYS.access_key_id, KEYS.secret_access_key, None, "us-east-1", store.url)
    return access(s3=keys, **values)


def test_a_mirror_in_s3_is_filled_and_then_serves_without_the_hub(cache: Cache, store: Store, tmp_path: Path) -> None:
    """Object names are NIM's; sizes and checksums come from the list that lies beside the files."""
    with hub_and_storage({MODEL: FILES}) as hub:
        done = mirror_files(CHECKPOINT, cache, s3_way(store, hf_endpoint=hub.url), "s3://bucket/models", Seen())
        again = mirror_files(CHECKPOINT, cache, s3_way(store, hf_endpoint=hub.url), "s3://bucket/models", Seen())

    assert (done.copied, done.kept) == (2, 0)
    assert (again.copied, again.kept) == (0, 2)
    assert f"/bucket/models/{quote(f'{MODEL}:main?file=config.json', safe='')}" in store.files
    way = s3_way(store, repository_override="s3://bucket/models", hf_endpoint="http://127.0.0.1:9")
    folder = fetch_workspace(CHECKPOINT, Cache(tmp_path / "other"), way)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: FILES[name] for name in ("config.json", "model-00001-of-00001.safetensors")
    }


def test_large_files_go_to_s3_in_parts(
    cache: Cache, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """S3 takes no more than 5 GB in one request."""
    monkeypatch.setattr("launcher.download.mirror._PART", 64_000)
    with hub_and_storage({MODEL: FILES}) as hub:
        mirror_files(CHECKPOINT, cache, s3_way(store, hf_endpoint=hub.url), "s3://bucket", Seen())

    assert [len(store.parts[number]) for number in "1234"] == [64_000, 64_000, 64_000, 8_000]
    folder = fetch_workspace(CHECKPOINT, Cache(tmp_path / "other"), s3_way(store, repository_override="s3://bucket"))
    assert (folder / "model-00001-of-00001.safetensors").read_bytes() == BODY


def test_s3_tells_keys_missing_objects_and_regions_apart(cache: Cache, store: Store) -> None:
    """Each has its own error, since each has another remedy."""
    wanted = [FileRequest("a", "s3://bucket/a")]
    wrong = S3Access(SecretStr("other"), SecretStr("x"), None, "us-east-1", store.url)
    with pytest.raises(AccessError, match="does not accept the key: InvalidAccessKeyId"):
        fetch_workspace(wanted, cache, access(s3=wrong))
    with pytest.raises(NotFoundError, match="s3://bucket/a does not exist"):
        fetch_workspace(wanted, cache, s3_way(store))
    store.routes = [
        (
            re.compile("^/"),
            lambda _: Answer(
                400,
                {"x-amz-bucket-region": "eu-central-1"},
                b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>",
            ),
        )
    ]
    with pytest.raises(AccessError) as caught:
        fetch_workspace(wanted, cache, s3_way(store))
    assert caught.value.remedy == "set AWS_REGION=eu-central-1"


@pytest.mark.parametrize("credential", ["t0ken", "Basic dTpw"])
def test_an_https_mirror_gets_its_credential_and_serves_files_without_a_list(cache: Cache, credential: str) -> None:
    """A mirror that was filled by hand has no list; single files with the manifest's facts will do."""
    wanted = [FileRequest("w", f"hf://{MODEL}:main?file=config.json", sha256=hashlib.sha256(b"x" * 50).hexdigest())]
    with FileServer({"/nim/" + f"{MODEL}:main?file=config.json": b"x" * 50}) as mirror:
        way = access(repository_override=f"{mirror.url}/nim/", mirror=credential)
        folder = fetch_workspace(wanted, cache, way)

    assert (folder / "w").read_bytes() == b"x" * 50
    expected = credential if " " in credential else f"Bearer {credential}"
    assert {request.headers.get("Authorization") for request in mirror.requests} == {expected}


def test_a_folder_is_a_mirror_too(cache: Cache, tmp_path: Path) -> None:
    """An air-gapped site carries a disk: nothing is copied from it, files are used where they lie."""
    target = tmp_path / "disk"
    with hub_and_storage({MODEL: FILES}) as hub:
        mirror_files(CHECKPOINT, cache, access(hf_endpoint=hub.url), str(target), Seen())

    other = Cache(tmp_path / "other")
    folder = fetch_workspace(CHECKPOINT, other, access(repository_override=f"file://{target}"))
    assert (folder / "model-00001-of-00001.safetensors").resolve().is_relative_to(target)
    assert (folder / "config.json").read_bytes() == FILES["config.json"]


def test_another_ngc_host_can_be_named() -> None:
    """``ngc://host`` replaces the registry's own name."""
    way = access(repository_override="ngc://registry.example")
    location = Locations(way, Client(way), Pace(way.patience)).of_file(parse_source(f"ngc://{NGC_MODEL}:1"), "a b", "1")

    assert location.url == (
        "https://registry.example/v2/org/nim/team/google/models/gemma-4-26b-a4b-it/versions/1/files/a%20b"
    )


def test_only_files_of_a_hub_can_be_mirrored(cache: Cache, tmp_path: Path) -> None:
    """Others have an address of their own already."""
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(LaunchError, match="nothing to mirror"):
        mirror_files([FileRequest("a", str(tmp_path / "a"))], cache, access(), str(tmp_path / "m"), Seen())


def test_a_cache_that_nim_filled_is_used_as_it_is(cache: Cache) -> None:
    """NIM names contents by MD5 or by an upload's mark, which proves nothing to us; size and manifest do."""
    repository = cache.root / "ngc/hub/models--nim--google--gemma-4-26b-a4b-it"
    for name, mark, body in (("config.json", "0355b8d0421a12e6aeb6a2e9ef42ae60", b"{}"), ("m.bin", "3e71-3091", BODY)):
        (repository / "blobs").mkdir(parents=True, exist_ok=True)
        (repository / "blobs" / mark).write_bytes(body)
        (repository / "snapshots" / "hf-8c22764").mkdir(parents=True, exist_ok=True)
        (repository / "snapshots" / "hf-8c22764" / name).symlink_to(f"../../blobs/{mark}")
    (repository / "refs").mkdir()
    (repository / "refs" / "1.0").write_text("hf-8c22764")
    wanted = [
        FileRequest("config.json", f"ngc://{NGC_MODEL}:1.0?file=config.json"),
        FileRequest("m.bin", f"ngc://{NGC_MODEL}:1.0?file=m.bin", len(BODY), hashlib.sha256(BODY).hexdigest()),
    ]

    folder = fetch_workspace(wanted, cache, access(offline=True))

    assert (folder / "m.bin").resolve() == repository / "blobs" / "3e71-3091"
    (repository / "blobs" / "3e71-3091").write_bytes(BODY[:-1] + b"x")
    with pytest.raises(NotFoundError, match=r"lacks m\.bin"):
        fetch_workspace(wanted, cache, access(offline=True))
