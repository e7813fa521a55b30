"""API processes over a scripted engine, each with the ``NIM_*`` variables that its tests are about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.api.conftest import ScriptedServer, start_scripted_server
from tests.fakes.picture_server import ForbiddenListener

StartApi = Callable[..., AbstractContextManager[ScriptedServer]]


@pytest.fixture(scope="session")
def start_api(tmp_path_factory: pytest.TempPathFactory) -> StartApi:
    """Return what starts an API process of its own: keyword arguments are ``NIM_*`` variables."""
    return lambda **variables: start_scripted_server(tmp_path_factory.mktemp("media"), variables)


@pytest.fixture(scope="session")
def scripted_api(start_api: StartApi) -> Iterator[ScriptedServer]:
    """Start one API process with all settings at their defaults."""
    with start_api() as server:
        yield server


@pytest.fixture
def api(scripted_api: ScriptedServer) -> ScriptedServer:
    """Return the API process with no memory of earlier requests."""
    scripted_api.reply("Hi<turn|>")
    scripted_api.core.requests.clear()
    return scripted_api


@pytest.fixture(scope="session")
def forbidden() -> Iterator[ForbiddenListener]:
    """Return a listener on this machine that no picture may ever be fetched from."""
    with ForbiddenListener() as listener:
        yield listener
