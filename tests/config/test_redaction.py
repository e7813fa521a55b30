"""Secrets never reach a line of output."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.redaction import HIDDEN, SHORTEST, Redactor

PROGRAM = """
import logging
from config.logs import configure_logging
from config.settings import LogSettings
configure_logging(LogSettings(level="INFO", jsonl={jsonl}), "launcher", ["my-very-own-key"])
logging.info("fetching with %s", "my-very-own-key")
try:
    raise OSError("https://me:pa55word@proxy:3128 refused my-very-own-key")
except OSError:
    logging.exception("failed")
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token hf_abcdefghijklmnopqrst!", f"token {HIDDEN}!"),
        ("nvapi-0123456789abcdef_-x", HIDDEN),
        ("key AKIAABCDEFGHIJKLMNOP", f"key {HIDDEN}"),
        ("Authorization: Bearer abc.def-123", f"Authorization: Bearer {HIDDEN}"),
        ("http://user:pass@proxy.example:3128/", f"http://{HIDDEN}@proxy.example:3128/"),
        (
            "https://s3/x?X-Amz-Credential=AK%2F1&X-Amz-Signature=deadbeef&partNumber=1",
            f"https://s3/x?X-Amz-Credential={HIDDEN}&X-Amz-Signature={HIDDEN}&partNumber=1",
        ),
        ("https://cdn/x?Expires=5&Signature=abc~&Key-Pair-Id=K1", f"https://cdn/x?Expires=5&Signature={HIDDEN}&Key-Pair-Id={HIDDEN}"),
    ],
)  # fmt: skip
def test_forms_of_secrets_are_hidden(text: str, shown: str) -> None:
    """Whoever made the text: keys, passwords in addresses, signatures."""
    assert Redactor()(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "model google/gemma-4-31B-it at hf://google/gemma-4-31B-it",
        "http://127.0.0.1:8000/v1/health/ready",
        "12:30:59 user@example.com",
        "max_tokens=512 tokens/s 30.2 the bearer of news",
        "NIM_SERVER_PORT='abc' from --port: must be a number",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    """Redaction must not spoil what helps."""
    assert Redactor(["x", "the"])(text) == text


@given(
    st.text(st.characters(codec="ascii", exclude_characters="*"), min_size=SHORTEST, max_size=30),
    st.text(max_size=30), st.text(max_size=30),
)  # fmt: skip
def test_given_values_never_appear(secret: str, before: str, after: str) -> None:
    """Whatever stands around them."""
    assert secret not in Redactor([secret])(before + secret + after)


@pytest.mark.parametrize("jsonl", [False, True])
def test_logs_hide_secrets_in_messages_and_tracebacks(*, jsonl: bool) -> None:
    """A library's exception is the usual way for a password into a log."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(jsonl=jsonl)], capture_output=True, text=True, check=True
    )

    assert "my-very-own-key" not in done.stderr
    assert "pa55word" not in done.stderr
    assert done.stderr.count(HIDDEN) >= 3
    if jsonl:
        assert all(json.loads(line)["level"] for line in done.stderr.splitlines())
