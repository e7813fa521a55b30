"""Reading the environment: names, values, ranges, and nothing ignored in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.environment import SPECIAL, child_environment, load_settings
from config.errors import ConfigError
from config.known import ALIASES, FOREIGN, NOT_SUPPORTED, UNTOUCHED
from config.settings import Settings, sections, variables

OWN_NAMES = ("NIM_", "NGC_", "HF_", "AWS_", "HTTP", "NO_PROXY", "SSL_", "REQUESTS_")


def test_empty_environment_gives_the_defaults() -> None:
    """Without any variable the documented defaults hold, and there is nothing to warn about."""
    loaded = load_settings(environ={})

    assert loaded.settings == Settings()
    assert loaded.settings.server.port == 8000
    assert loaded.warnings == ()


def test_values_are_read_and_converted() -> None:
    """Numbers, flags, lists, levels and paths arrive as such."""
    settings = load_settings(
        environ={
            "NIM_SERVER_PORT": "9001",
            "NIM_LENIENT_REQUESTS": "1",
            "NIM_SERVED_MODEL_NAME": "a, b ,,c",
            "NIM_LOG_LEVEL": "debug",
            "NIM_MODEL_PATH": "/models/x.gguf",
            "NIM_IMAGE_TOKENS": "560",
            "NIM_MAX_MODEL_LEN": "4096",
        }
    ).settings

    assert settings.server.port == 9001
    assert settings.server.lenient_requests is True
    assert settings.model.served_names == ("a", "b", "c")
    assert settings.log.level == "DEBUG"
    assert settings.model.path == Path("/models/x.gguf")
    assert settings.media.image_tokens == 560
    assert settings.model.max_model_len == 4096


@pytest.mark.parametrize("value", ["-1", "auto"])
def test_automatic_context_counts_as_unset(value: str) -> None:
    """NIM_MAX_MODEL_LEN=-1, as newer NIMs write it, leaves the choice to the launcher."""
    assert load_settings(environ={"NIM_MAX_MODEL_LEN": value}).settings.model.max_model_len is None


@pytest.mark.parametrize("value", ["default", "auto"])
def test_default_profile_counts_as_unset(value: str) -> None:
    """NIM_MODEL_PROFILE=default means automatic, as in NIM."""
    assert load_settings(environ={"NIM_MODEL_PROFILE": value}).settings.profile.name is None


@pytest.mark.parametrize(("old", "new"), [("TRACE", "DEBUG"), ("DEFAULT", "INFO")])
def test_log_levels_of_1x_are_understood(old: str, new: str) -> None:
    """The two level names that only NIM 1.x knows map to their neighbours."""
    assert load_settings(environ={"NIM_LOG_LEVEL": old}).settings.log.level == new


def test_blank_variable_counts_as_unset() -> None:
    """Compose files set variables to nothing when they mean "not set"."""
    assert load_settings(environ={"NIM_SERVER_PORT": " "}).settings.server.port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NIM_SERVER_PORT", "0"),
        ("NIM_SERVER_PORT", "70000"),
        ("NIM_SERVER_PORT", "http"),
        ("NIM_LOG_LEVEL", "LOUD"),
        ("NIM_IMAGE_TOKENS", "300"),
        ("NIM_LENIENT_REQUESTS", "perhaps"),
        ("NIM_MAX_NUM_SEQS", "0"),
        ("NIM_ENGINE_THREADS", "-2"),
        ("NIM_MODEL_PROFILE", "one two"),
        ("NIM_MAX_MODEL_LEN", "1.5"),
    ],
)
def test_bad_value_is_one_line_that_names_the_variable(name: str, value: str) -> None:
    """A value that cannot be used is refused in one line with the variable and the value."""
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={name: value})

    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{name}={value!r}: ")
    assert "\n" not in caught.value.problems[0]


def test_all_bad_values_are_named_at_once() -> None:
    """Nobody has to start the server once per mistake."""
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"NIM_SERVER_PORT": "x", "NIM_MAX_QUEUED": "y", "NIM_LOG_LEVEL": "z"})

    assert len(caught.value.problems) == 3


def test_unknown_variable_is_a_warning_with_the_nearest_name() -> None:
    """A misspelt variable is told apart and corrected."""
    (warning,) = load_settings(environ={"NIM_SERVER_PROT": "1"}).warnings

    assert "NIM_SERVER_PROT" in warning
    assert "did you mean NIM_SERVER_PORT?" in warning


def test_unknown_variable_is_an_error_when_strict() -> None:
    """With NIM_STRICT_CONFIG=1 a variable without effect keeps the server from starting."""
    with pytest.raises(ConfigError, match="NIM_SERVER_PROT"):
        load_settings(environ={"NIM_SERVER_PROT": "1", "NIM_STRICT_CONFIG": "1"})


@pytest.mark.parametrize(("alias", "name"), sorted(ALIASES.items()))
def test_other_names_set_the_same_setting(alias: str, name: str) -> None:
    """A name from another NIM container works like ours, without a warning."""
    value = "1"

    assert load_settings(environ={alias: value}) == load_settings(environ={name: value})
    assert load_settings(environ={alias: value}) != load_settings(environ={})


def test_own_name_wins_over_the_other_name_and_says_so() -> None:
    """When both names are set to different values, ours counts and the other is named."""
    loaded = load_settings(environ={"NIM_HTTP_API_PORT": "9001", "NIM_SERVER_PORT": "9002"})

    assert loaded.settings.server.port == 9002
    assert loaded.warnings == ("NIM_HTTP_API_PORT has no effect: NIM_SERVER_PORT is set, too",)


def test_strict_start_bears_two_names_of_other_programs() -> None:
    """Proxies are often set in both spellings, for programs that know only one."""
    environ = {"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1", "NIM_STRICT_CONFIG": "1"}

    assert load_settings(environ=environ).warnings == ("https_proxy has no effect: HTTPS_PROXY is set, too",)


def test_bad_settings_tell_whether_json_lines_are_wanted() -> None:
    """So that even this complaint has the form that was asked for."""
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"NIM_SERVER_PORT": "x", "NIM_JSONL_LOGGING": "1"})

    assert caught.value.jsonl is True


def test_overrides_win_over_the_environment() -> None:
    """The command line beats the environment."""
    loaded = load_settings({"NIM_SERVER_PORT": "9002"}, environ={"NIM_SERVER_PORT": "9001"})

    assert loaded.settings.server.port == 9002


def test_variables_of_others_are_left_alone() -> None:
    """Only names that start with NIM_ are ours to judge."""
    assert load_settings(environ={"PATH": "/bin", "PORT": "1", "nim_server_port": "2"}).warnings == ()


def test_stray_env_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .env file in the working folder changes nothing."""
    (tmp_path / ".env").write_text("NIM_SERVER_PORT=9003\n")
    monkeypatch.chdir(tmp_path)

    assert load_settings(environ={}).settings.server.port == 8000


def test_children_inherit_the_environment_with_the_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line changed reaches the processes that the launcher starts."""
    monkeypatch.setenv("NIM_SERVER_PORT", "1")
    monkeypatch.setenv("GEMMA4_TEST_MARK", "kept")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("https_proxy", "http://user:password@proxy:1")

    environment = child_environment({"NIM_SERVER_PORT": "2"})

    assert environment["NIM_SERVER_PORT"] == "2"
    assert environment["GEMMA4_TEST_MARK"] == "kept"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "https_proxy" not in environment


def test_no_name_has_two_meanings() -> None:
    """Settings, other names and names without effect are three separate sets."""
    names = [*variables(), *ALIASES, *NOT_SUPPORTED, *FOREIGN, *UNTOUCHED, *SPECIAL]

    assert len(names) == len(set(names))
    assert set(ALIASES.values()) <= set(variables())


@pytest.mark.parametrize("section", sorted(sections()))
def test_settings_models_are_small_frozen_and_documented(section: str) -> None:
    """Each model has at most twelve fields, each with a full name and a sentence."""
    model = sections()[section]

    assert len(model.model_fields) <= 12
    assert model.model_config["frozen"] is True
    for field in model.model_fields.values():
        assert str(field.alias).startswith(OWN_NAMES)
        assert field.description


@given(st.dictionaries(st.sampled_from(sorted(variables())), st.text(st.characters(codec="ascii"), max_size=12)))
def test_any_text_is_used_or_refused_by_name(environ: dict[str, str]) -> None:
    """Whatever stands in a variable, the outcome is settings or problems that name variables, never another error."""
    try:
        load_settings(environ=environ)
    except ConfigError as error:
        assert all(problem.startswith(OWN_NAMES) for problem in error.problems)
