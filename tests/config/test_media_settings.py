"""Settings of pictures: lists of hosts and ports, and the folder that requests may read."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.environment import load_settings
from config.errors import ConfigError


def test_hosts_and_ports_are_lists() -> None:
    """Every form of an entry is taken as it is written; ports are numbers."""
    settings = load_settings(
        environ={
            "NIM_ALLOWED_MEDIA_DOMAINS": "example.com, *.cdn.example.com,10.0.0.5:8080 ,"
            "[::1]:8080,*,b\u00fccher.example",
            "NIM_ALLOWED_MEDIA_PORTS": "80, 8443",
            "NIM_ALLOW_URL_INPUT": "0",
        }
    ).settings

    assert settings.fetch.allowed_domains == (
        "example.com", "*.cdn.example.com", "10.0.0.5:8080", "[::1]:8080", "*", "b\u00fccher.example",
    )  # fmt: skip
    assert settings.fetch.allowed_ports == (80, 8443)
    assert settings.fetch.allow_url_input is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NIM_ALLOWED_MEDIA_DOMAINS", "https://example.com"),
        ("NIM_ALLOWED_MEDIA_DOMAINS", "example.com/pictures"),
        ("NIM_ALLOWED_MEDIA_DOMAINS", "user@example.com"),
        ("NIM_ALLOWED_MEDIA_DOMAINS", "example.*"),
        ("NIM_ALLOWED_MEDIA_DOMAINS", "example.com:0"),
        ("NIM_ALLOWED_MEDIA_DOMAINS", "example.com:99999"),
        ("NIM_ALLOWED_MEDIA_DOMAINS", "example.com:http"),
        ("NIM_ALLOWED_MEDIA_DOMAINS", "256.256.256.256"),
        ("NIM_ALLOWED_MEDIA_DOMAINS", "[::1"),
        ("NIM_ALLOWED_MEDIA_DOMAINS", "good.example,bad example"),
        ("NIM_ALLOWED_MEDIA_PORTS", "80,http"),
        ("NIM_ALLOWED_MEDIA_PORTS", "0"),
        ("NIM_ALLOWED_MEDIA_PORTS", "65536"),
        ("NIM_ALLOWED_LOCAL_MEDIA_PATH", "/"),
        ("NIM_ALLOWED_LOCAL_MEDIA_PATH", "pictures"),
        ("NIM_MAX_IMAGES_PER_PROMPT", "-1"),
        ("NIM_IMAGE_TOKENS", "300"),
        ("NIM_MAX_IMAGE_BYTES", "20MiB"),
        ("NIM_MEDIA_FETCH_TIMEOUT_SECONDS", "0"),
        ("NIM_ALLOW_URL_INPUT", "perhaps"),
    ],
)
def test_what_would_not_do_what_was_meant_is_refused(name: str, value: str) -> None:
    """The variable is named, and the server does not start."""
    with pytest.raises(ConfigError) as refused:
        load_settings(environ={name: value})

    assert len(refused.value.problems) == 1
    assert refused.value.problems[0].startswith(f"{name}=")


def test_folder_of_pictures_is_a_path() -> None:
    """An absolute path is taken; whether it exists is checked where it is used."""
    settings = load_settings(environ={"NIM_ALLOWED_LOCAL_MEDIA_PATH": "/data/pictures"}).settings

    assert settings.media.allowed_local_path == Path("/data/pictures")
