"""Keys and passwords: taken from variables or files, never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.environment import load_settings
from config.errors import ConfigError
from config.settings import secrets

SECRET = "hf_dont_show_me"  # noqa: S105 - it opens nothing


@pytest.mark.parametrize("name", sorted(secrets()))
def test_secret_is_not_shown_by_the_settings(name: str) -> None:
    """Neither as text nor as JSON."""
    settings = load_settings(environ={name: SECRET}).settings

    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert SECRET not in json.dumps(settings.model_dump(mode="json"))


@pytest.mark.parametrize("name", sorted(secrets()))
def test_secret_can_stand_in_a_file(name: str, tmp_path: Path) -> None:
    """X_FILE is for mounted secrets; the line break at the end does not belong to it."""
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")

    assert load_settings(environ={name + "_FILE": str(path)}).settings == load_settings(environ={name: SECRET}).settings


@pytest.mark.parametrize("name", ["HF_TOKEN", "NGC_API_KEY", "NGC_CLI_API_KEY"])
@pytest.mark.parametrize("value", ["two words", "line\nbreak", "umlaut-ä"])
def test_bad_key_is_refused_without_being_shown(name: str, value: str) -> None:
    """The usual mistake is a file with more than the key in it."""
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={name: value})

    (problem,) = caught.value.problems
    assert problem.startswith(f"{name}: ")
    assert value not in problem


@pytest.mark.parametrize(("content", "complaint"), [(None, "No such file"), ("", "is empty"), (b"\xff", "not text")])
def test_bad_file_is_named(content: str | bytes | None, complaint: str, tmp_path: Path) -> None:
    """The variable, the path and the reason."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"HF_TOKEN_FILE": str(path)})

    (problem,) = caught.value.problems
    assert problem.startswith(f"HF_TOKEN_FILE={str(path)!r}: ")
    assert complaint in problem


def test_secret_given_twice_is_refused(tmp_path: Path) -> None:
    """Which of the two is meant cannot be known."""
    with pytest.raises(ConfigError, match="HF_TOKEN is given, too"):
        load_settings(environ={"HF_TOKEN": "a", "HF_TOKEN_FILE": str(tmp_path)})


def test_secrets_are_not_handed_on() -> None:
    """The processes that serve have no use for them."""
    loaded = load_settings(environ=dict.fromkeys(secrets(), SECRET))

    assert loaded.variables == {}


@pytest.mark.parametrize("name", ["NIM_MODEL_URI", "NIM_REPOSITORY_OVERRIDE"])
def test_passwords_in_addresses_are_not_handed_on(name: str) -> None:
    """Only the launcher downloads: other processes get the address without user, password and signature."""
    address = "https://me:hunter22@mirror.example/model.gguf?X-Amz-Signature=abcdef"
    loaded = load_settings(environ={name: address})
    used = loaded.settings.model.uri or loaded.settings.cache.repository_override

    assert used == address
    assert loaded.variables[name] == "https://***@mirror.example/model.gguf?X-Amz-Signature=***"
