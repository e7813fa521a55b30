"""API keys: who gets in, which routes are open, and that no spelling of a path leads around them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from api.http.auth import KeyRing
from config.api_keys import ApiKey, KeyTable, digest, parse_hashes
from config.errors import ConfigError
from tests.api.conftest import FILED_KEY, KEY, MODEL, ORIGIN, OTHER_KEY, ScriptedServer
from tests.api.guarded import check_error, connect, head, post, send
from tests.fakes.processes import wait_until

HELM_TEST = Path(__file__).parents[2] / "helm" / "gemma4-nim" / "files" / "check.py"
BEARER = f"authorization: Bearer {KEY}"


@pytest.mark.parametrize("key", [KEY, OTHER_KEY, FILED_KEY])
def test_each_key_opens_the_server_to_the_sdk(guarded: ScriptedServer, key: str) -> None:
    """Keys of the list and keys of the file are equal, for models and for chats, streamed or not."""
    client = openai.OpenAI(base_url=f"{guarded.base_url}/v1", api_key=key, max_retries=0, timeout=60)
    ask: list[Any] = [{"role": "user", "content": "Hi"}]

    assert next(iter(client.models.list())).id == MODEL
    assert client.chat.completions.create(model=MODEL, messages=ask).choices[0].message.content == "Hi"
    parts = client.chat.completions.create(model=MODEL, messages=ask, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "Hi"


def test_sdk_is_told_of_a_wrong_key(guarded: ScriptedServer) -> None:
    """It raises the error that it has for that, and does not come again."""
    client = openai.OpenAI(base_url=f"{guarded.base_url}/v1", api_key="wrong", timeout=60)

    with pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()

    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    "header",
    [
        BEARER,
        f"Authorization: bearer   {KEY}",
        f"x-api-key: {KEY}",
        f"X-API-KEY: {FILED_KEY}",
        f"authorization: Bearer wrong\r\nx-api-key: {KEY}",
    ],
)
def test_headers_that_open(guarded: ScriptedServer, header: str) -> None:
    """OpenAI's header, in any case, and Anthropic's; one right key is enough."""
    assert send(guarded, head("GET", "/v1/models", header))[0] == 200


@pytest.mark.parametrize(
    "header",
    [
        "x-other: 1",
        "authorization: Bearer ",
        "authorization: Bearer",
        f"authorization: {KEY}",
        f"authorization: Basic {KEY}",
        f"authorization: Bearer {KEY[:-1]}",
        f"authorization: Bearer {KEY}x",
        f"authorization: Bearer {KEY.upper()}",
        f"authorization: Bearer {KEY},{OTHER_KEY}",
        f"authorization: Bearer {digest(KEY.encode())}",
        "authorization: Bearer key1",
        "authorization: Bearer \xff\xfe",
        f"cookie: api_key={KEY}",
    ],
)
def test_headers_that_do_not_open(guarded: ScriptedServer, header: str) -> None:
    """Neither half a key nor its digest nor its name; the answer says what is asked for."""
    answer = send(guarded, head("GET", "/v1/models", header))

    check_error(answer, 401, "invalid_api_key")
    assert answer[1]["www-authenticate"].startswith('Bearer realm="gemma4-nim"')


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models", "//v1/models", "/v1//models", "/v1/./models", "/v1/%6dodels", "/%76%31/models", "/v1%2fmodels",
        "/v1/models/", "/V1/MODELS", "/v1/health/live/../../models", "/v1/health/../models", "/v1/health/live/",
        "//v1/health/live", "/v1/health/live;x", "/v1/health/%6cive", "/v1/health%2flive", "/v1/health", "/", "*",
        "http://other/v1/models", "/docs", "/openapi.json", "/metrics", "/v1/metrics", "/v1/capabilities", "/unknown",
        "/v1/models?a=/v1/health/live",
    ],
)  # fmt: skip
def test_everything_else_is_closed_however_it_is_written(guarded: ScriptedServer, target: str) -> None:
    """The refusal comes before routes, methods and 404."""
    with connect(guarded) as client:
        for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE"):
            client.send(head(method, target))
            status, headers, _ = client.answer(method)
            assert (method, status) == (method, 401)
            assert headers["www-authenticate"] == 'Bearer realm="gemma4-nim"'


@pytest.mark.parametrize("name", ["live", "ready"])
def test_health_is_open(guarded: ScriptedServer, name: str) -> None:
    """Probes have no key."""
    wait_until(lambda: send(guarded, head("GET", f"/v1/health/{name}?verbose=1"))[0] == 200, what=name)


def test_health_tells_figures_and_no_sentences(guarded: ScriptedServer) -> None:
    """Notes of the launcher may name machines and mirrors, which are for those who have a key to know."""
    status = {"phase": "waiting", "bytes_done": 1, "note": "waiting for host-7 (process 3)", "reason": "of its own"}
    guarded.core.healthy = False
    try:
        (guarded.api_runtime.parent / "status.json").write_text(json.dumps(status))
        code, _, body = send(guarded, head("GET", "/v1/health/ready"))
    finally:
        guarded.core.healthy = True
    assert (code, body["phase"], body["bytes_done"]) == (503, "waiting", 1)
    assert body.keys() == {"phase", "bytes_done", "object", "message", "status", "error"}


def test_unknown_paths_are_404_with_a_key(guarded: ScriptedServer) -> None:
    """Only who may know learns what there is."""
    check_error(send(guarded, head("GET", "/unknown", BEARER)), 404, "unknown_url")


def test_body_of_a_refused_request_is_never_read(guarded: ScriptedServer) -> None:
    """Not even as JSON."""
    check_error(send(guarded, post(b"{" * 1000)), 401, "invalid_api_key")


def test_log_has_the_name_and_never_the_key(guarded: ScriptedServer) -> None:
    """Who asked can be told from the log, which may be read by more people than the keys."""
    for key in (KEY, FILED_KEY, "wrong-key-of-the-tests"):
        requests.get(f"{guarded.base_url}/v1/models?{key}", headers={"x-api-key": key}, timeout=60)

    wait_until(lambda: "key=alice@example.org" in guarded.process.log(), what="the log line")
    log = guarded.process.log()
    assert "key=key1" in log
    assert not any(key in log for key in (KEY, OTHER_KEY, FILED_KEY, "wrong-key-of-the-tests"))


def test_helm_test_sends_the_key_that_it_is_given(guarded: ScriptedServer) -> None:
    """It takes it from its environment, as the chart's value tests.env sets it."""
    command = [sys.executable, "-I", str(HELM_TEST), "models", guarded.base_url, "60"]
    codes = [
        subprocess.run(command, env={**os.environ, "NIM_API_KEY": key}, capture_output=True, check=False).returncode
        for key in (f"{KEY}\n", "")
    ]

    assert codes == [0, 1]


def test_browsers_of_chosen_origins_are_let_in(guarded: ScriptedServer) -> None:
    """They ask first, without a key; the answer, an error too, says that the page may read it. Others get no header."""
    asked = ("access-control-request-method: POST", "access-control-request-headers: authorization,x-stainless-os")
    status, headers, _ = send(guarded, head("OPTIONS", "/v1/chat/completions", f"origin: {ORIGIN}", *asked))
    assert (status, headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "x-stainless-os" in headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in headers

    status, headers, _ = send(guarded, head("GET", "/v1/models", f"origin: {ORIGIN}"))
    assert (status, headers["access-control-allow-origin"]) == (401, ORIGIN)
    assert "X-Request-Id" in headers["access-control-expose-headers"]

    for answer in (
        send(guarded, head("GET", "/v1/models", "origin: https://evil.example", BEARER)),
        send(guarded, head("OPTIONS", "/v1/models", "origin: https://evil.example", *asked)),
    ):
        assert "access-control-allow-origin" not in answer[1]


def test_without_origins_there_are_no_headers_for_browsers(server: ScriptedServer) -> None:
    """Nothing is open to other pages by default."""
    answer = send(server, head("GET", "/v1/models", f"origin: {ORIGIN}"))

    assert answer[0] == 200
    assert not any(name.startswith("access-control") for name in answer[1])


def _replace(path: Path, text: str) -> None:
    """Exchange a file as Kubernetes does: by a link to another."""
    fresh = path.with_name(f"{path.name}.{len(list(path.parent.iterdir()))}")
    fresh.write_text(text)
    link = path.with_suffix(".link")
    link.symlink_to(fresh)
    link.replace(path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every use look at the file."""
    monkeypatch.setattr("api.http.auth.LOOK_EVERY_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_file_of_keys_is_read_again(tmp_path: Path) -> None:
    """A key that is added opens, one that is taken out does not; a file that cannot be used changes nothing."""
    path = tmp_path / "keys.txt"
    _replace(path, f"{digest(b'one')} one\n")
    ring = KeyRing([ApiKey(name="fixed", sha256=digest(b"zero"))], path)
    assert [ring.name_of([key]) for key in (b"zero", b"one", b"two")] == ["fixed", "one", None]

    _replace(path, f"{digest(b'two')} two\n")
    assert [ring.name_of([key]) for key in (b"zero", b"one", b"two")] == ["fixed", None, "two"]
    for broken in ("no hash\n", f"{digest(b'one')} one\nx\n"):
        _replace(path, broken)
        assert ring.name_of([b"two"]) == "two"
    path.unlink()
    assert ring.name_of([b"two"]) == "two"
    _replace(path, "# all are gone\n")
    assert [ring.name_of([key]) for key in (b"zero", b"two")] == ["fixed", None]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no key"),
        ("# nothing\n", "has no key"),
        ("\n\nsecret-in-clear\n", "line 3 is not a SHA-256"),
        ("0" * 64 + " two words\n", "line 1"),
        ("0" * 63 + " short\n", "line 1"),
        ("0" * 64 + " evil\x1b[2J\n", "line 1"),
        ("0" * 64 + f" {'n' * 65}\n", "line 1"),
    ],
)
def test_file_of_keys_that_cannot_be_used_at_the_start(tmp_path: Path, text: str, complaint: str) -> None:
    """The variable, the file and the line are named; what stands there is not, for it may be a key."""
    path = tmp_path / "keys.txt"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        KeyRing([], path)

    assert complaint in str(caught.value)
    assert f"NIM_API_KEY_HASHES_PATH={path}" in str(caught.value)
    assert "secret-in-clear" not in str(caught.value)


def test_lines_of_sha256sum_are_understood() -> None:
    """Its output may be taken as it is: then the key is called by its line."""
    keys = parse_hashes(f"# x\n{digest(b'a')}  -\n{digest(b'b').upper()} *bob\n")

    assert [(key.name, key.sha256) for key in keys] == [("line2", digest(b"a")), ("bob", digest(b"b"))]


def test_all_keys_are_compared() -> None:
    """The first and the last of many are found, and nothing else is."""
    table = KeyTable([ApiKey(name=str(number), sha256=digest(os.fsencode(str(number)))) for number in range(50)])

    assert [table.name_of(key) for key in (b"0", b"49", b"50", b"")] == ["0", "49", None, None]
