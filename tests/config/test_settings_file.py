"""The settings file: plain values, lists and tags; what cannot be used is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.environment import load_settings
from config.errors import ConfigError
from config.settings import Settings

TEXT = """
model:
  served_names: [first, second]
  max_model_len: auto
server:
  lenient_requests: on
  port:
profile:
  tags: {precision: fp8, tp: 2}
log: {level: debug}
cache:
"""


def _load(folder: Path, text: str) -> Settings:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(environ={"NIM_CONFIG_FILE": str(path)}).settings


def _problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _load(folder, text)
    return [problem.removeprefix(f"{folder / 'settings.yaml'}") for problem in caught.value.problems]


def test_values_lists_and_tags_are_read(tmp_path: Path) -> None:
    """A value without text counts as not given, and YAML's own guesses change nothing."""
    settings = _load(tmp_path, TEXT)

    assert settings.model.served_names == ("first", "second")
    assert settings.model.max_model_len is None
    assert settings.server.lenient_requests is True
    assert settings.server.port == 8000
    assert settings.profile.tags == (("precision", "fp8"), ("tp", "2"))
    assert settings.log.level == "DEBUG"


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_empty_file_sets_nothing(tmp_path: Path, text: str) -> None:
    """All defaults hold."""
    assert _load(tmp_path, text) == Settings()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server:\n  prot: 1\n", ":2: server.prot is not a setting; did you mean server.port?"),
        ("sever:\n  port: 1\n", ":1: sever is not a setting; did you mean server?"),
        ("server:\n  port: 1\n  port: 2\n", ":3: server.port stands twice"),
        ("server: 1\n", ":1: server must be a list of names with values, as in server: {port: 9000}"),
        ("- a\n", ":1: the file must be a list of names with values, as in server: {port: 9000}"),
        ("server:\n  port: {a: 1}\n", ":2: server.port must be one value"),
        ("model:\n  served_names: [a, [b]]\n", ":2: model.served_names must be a list of words without commas"),
        ("model:\n  served_names: ['a,b']\n", ":2: model.served_names must be a list of words without commas"),
        ("profile:\n  tags: {a: [1]}\n", ":2: profile.tags must be one value"),
        ("[a, b]: 1\n", ":1: ? is not a setting"),
        ("server: [\n", ":2: not YAML: "),
        ("server:\n  port: *a\n", ":2: not YAML: "),
        ("server:\n  port: &a [*a]\n", ":2: server.port must be a list of words without commas"),
        ("a: 1\n---\nb: 2\n", ":2: not YAML: "),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    """The file, the line and the key."""
    assert any(found.startswith(problem) for found in _problems(tmp_path, text)), _problems(tmp_path, text)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"a: \x01"])
def test_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A settings file that was named has to be there and to be text."""
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load_settings(environ={}, arguments=["--config-file", str(path)])

    assert str(path) in caught.value.problems[0]


def test_passthrough_cannot_name_the_file() -> None:
    """The file is weaker than NIM_PASSTHROUGH_ARGS, so it must be known before."""
    with pytest.raises(ConfigError, match="set NIM_CONFIG_FILE"):
        load_settings(environ={"NIM_PASSTHROUGH_ARGS": "--config-file x"})


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.getcwd []", "!secret x", "!!binary aGk="])
def test_tags_build_no_objects(tmp_path: Path, tag: str) -> None:
    """Only text is taken from the file, whatever YAML could make of it."""
    try:
        settings = _load(tmp_path, f"log:\n  level: {tag}\n")
    except ConfigError as error:
        assert "log.level" in str(error)
    else:
        assert settings == Settings()


@given(st.text(max_size=60))
def test_any_text_is_used_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Never another error."""
    try:
        _load(tmp_path_factory.mktemp("any"), text)
    except (ConfigError, UnicodeEncodeError) as error:
        assert str(error)
