"""Every variable that NVIDIA's containers know has a verdict here; nothing that is set is passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.environment import SPECIAL, load_settings
from config.errors import ConfigError
from config.known import ALIASES, FAMILIES, FOREIGN, NOT_SUPPORTED, UNTOUCHED
from config.settings import variables
from config.settings_verdicts import answer_to, explain

LIST = Path(__file__).parents[1] / "data" / "nim_variables.txt"
NAMES = [line for line in LIST.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
EFFECTIVE = {*variables(), *ALIASES, *SPECIAL}
UNUSUAL = "something-unusual"


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_of_nim_has_a_verdict(name: str) -> None:
    """It is a setting, another name of one, refused or without effect for a stated reason, or left to its program."""
    probe = name.replace("*", "X")

    assert name in EFFECTIVE or name in UNTOUCHED or probe in FOREIGN or answer_to(probe) is not None


@pytest.mark.parametrize("name", sorted(NOT_SUPPORTED))
def test_variable_without_effect_says_why_or_stops_the_start(name: str) -> None:
    """Set to something, it is named with the reason: in a warning, or where it would be missed badly as a refusal."""
    answer = NOT_SUPPORTED[name]
    if answer.stops:
        with pytest.raises(ConfigError) as caught:
            load_settings(environ={name: UNUSUAL})
        assert caught.value.problems == (f"{name} cannot be done: {answer.reason}",)
    else:
        assert load_settings(environ={name: UNUSUAL}).warnings == (f"{name} has no effect: {answer.reason}",)


@pytest.mark.parametrize("name", sorted(name for name, answer in NOT_SUPPORTED.items() if not answer.stops))
def test_variable_without_effect_is_refused_when_strict(name: str) -> None:
    """NIM_STRICT_CONFIG=1 turns each such warning into a refusal."""
    with pytest.raises(ConfigError, match=name):
        load_settings(environ={name: UNUSUAL, "NIM_STRICT_CONFIG": "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    sorted((name, value) for name, answer in NOT_SUPPORTED.items() for value in answer.as_it_is),
)
def test_value_that_asks_for_what_is_so_anyway_is_fine(name: str, value: str) -> None:
    """Charts write many variables with their defaults: even a strict start takes these."""
    assert load_settings(environ={name: value, "NIM_STRICT_CONFIG": "1"}).warnings == ()


def test_health_port_may_be_the_servers_own() -> None:
    """Only another port would be missed."""
    same = {"NIM_SERVER_PORT": "9000", "NIM_HEALTH_PORT": "9000", "NIM_STRICT_CONFIG": "1"}

    assert load_settings(environ=same).warnings == ()
    with pytest.raises(ConfigError, match="NIM_HEALTH_PORT cannot be done"):
        load_settings(environ={"NIM_HEALTH_PORT": "9000"})


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_variable_of_another_program_is_told_but_never_refused(name: str) -> None:
    """They may be meant for somebody else, so not even a strict start fails on them."""
    loaded = load_settings(environ={name: "x", "NIM_STRICT_CONFIG": "1"})

    assert loaded.warnings == (f"{name} has no effect: {FOREIGN[name]}",)


def test_family_of_variables_is_known_by_its_beginning() -> None:
    """NIM_REWARD_* is not one name but many."""
    (warning,) = load_settings(environ={"NIM_REWARD_MODEL": "1"}).warnings

    assert warning == explain("NIM_REWARD_MODEL", FAMILIES["NIM_REWARD_"])


def test_what_the_operator_sets_starts_without_a_warning() -> None:
    """NVIDIA's Kubernetes operator injects these into every pod of a single node."""
    injected = {
        "NIM_CACHE_PATH": "/model-store",
        "NIM_SERVER_PORT": "8000",
        "NIM_HTTP_API_PORT": "8000",
        "NIM_JSONL_LOGGING": "1",
        "NIM_LOG_LEVEL": "INFO",
        "OUTLINES_CACHE_DIR": "/cache/outlines",
        "NIM_STRICT_CONFIG": "1",
    }

    assert load_settings(environ=injected).warnings == ()
