"""LoRA adapters as clients see them: listed beside the model, chosen by ``model``, and unknown when they have gone."""

from __future__ import annotations

import threading

import openai
import pytest
import requests

from engine.core import EngineRequest
from tests.api.conftest import ALIAS, MODEL, ScriptedServer

MESSAGES = [{"role": "user", "content": "Hello"}]


def listed(server: ScriptedServer) -> list[str]:
    """Return the names that are listed now."""
    return [model.id for model in server.client.models.list()]


def ask(server: ScriptedServer, model: str, **fields: object) -> requests.Response:
    """Ask a model."""
    return server.post({"model": model, "messages": MESSAGES, **fields})


def test_adapters_are_listed_beside_the_model(server: ScriptedServer) -> None:
    """Each with the model as its root and parent; what comes and goes is seen with the next request."""
    assert listed(server) == [MODEL, ALIAS]

    server.core.adapters = ("poet", "lawyer")
    models = {model.id: model.model_dump() for model in server.client.models.list()}

    assert list(models) == [MODEL, ALIAS, "poet", "lawyer"]
    assert (models["poet"]["root"], models["poet"]["parent"]) == (MODEL, MODEL)
    assert (models[ALIAS]["root"], models[ALIAS]["parent"]) == (MODEL, None)
    assert models["poet"]["max_model_len"] == models[MODEL]["max_model_len"]
    assert server.client.models.retrieve("lawyer").id == "lawyer"
    capabilities = requests.get(f"{server.base_url}/v1/capabilities", timeout=30).json()
    assert capabilities["models"] == [MODEL, ALIAS, "poet", "lawyer"]

    server.core.adapters = ("lawyer",)
    with pytest.raises(openai.NotFoundError, match="poet"):
        server.client.models.retrieve("poet")
    assert listed(server) == [MODEL, ALIAS, "lawyer"]


@pytest.mark.parametrize("stream", [False, True])
def test_adapter_is_chosen_by_model(server: ScriptedServer, *, stream: bool) -> None:
    """It is named to the engine and echoed in the answer; requests for the model itself name none."""
    server.core.adapters = ("poet",)

    if stream:
        names = {
            event["model"] for event in server.events({"model": "poet", "messages": MESSAGES}) if event != "[DONE]"
        }
        assert names == {"poet"}
    else:
        assert ask(server, "poet").json()["model"] == "poet"
    assert ask(server, ALIAS).json()["model"] == MODEL
    assert ask(server, MODEL).json()["model"] == MODEL

    assert [request.adapter for request in server.core.requests] == ["poet", None, None]


@pytest.mark.parametrize("stream", [False, True])
def test_new_adapter_is_found_and_gone_one_is_unknown(server: ScriptedServer, *, stream: bool) -> None:
    """Nothing that the API remembers hides either; the fault looks as for any other unknown name."""
    before = ask(server, "late", stream=stream)
    server.core.adapters = ("late",)
    found = ask(server, "late")
    server.core.adapters = ()
    after = ask(server, "late", stream=stream)

    assert (before.status_code, found.status_code, after.status_code) == (404, 200, 404)
    assert after.json() == before.json()
    assert after.json()["error"]["code"] == "model_not_found"
    assert after.json()["error"]["param"] == "model"


def test_n_choices_all_name_the_adapter(server: ScriptedServer) -> None:
    """Each of the n sequences of a request runs on it."""
    server.core.adapters = ("poet",)

    assert len(ask(server, "poet", n=3).json()["choices"]) == 3
    assert [request.adapter for request in server.core.requests] == ["poet"] * 3


def test_answer_that_runs_when_its_adapter_goes_ends_normally(server: ScriptedServer) -> None:
    """Only new requests are refused."""
    server.core.adapters = ("poet",)
    begun, gone = threading.Event(), threading.Event()

    def script(request: EngineRequest):
        first, *rest = server.deltas(request, "Still here<turn|>")
        yield first
        begun.set()
        yield gone
        yield from rest

    server.core.script = script
    answers: list[requests.Response] = []
    running = threading.Thread(target=lambda: answers.append(ask(server, "poet")))
    running.start()
    assert begun.wait(60)
    server.core.adapters = ()
    refused = ask(server, "poet")
    gone.set()
    running.join(60)

    assert refused.status_code == 404
    assert answers[0].json()["choices"][0]["message"]["content"] == "Still here"


def test_model_may_not_be_taken_over_by_an_adapter(server: ScriptedServer) -> None:
    """An engine with other names for its model may have such an adapter; the name stays the model's."""
    server.core.adapters = (MODEL, "poet")

    assert listed(server) == [MODEL, ALIAS, "poet"]
    ask(server, MODEL)
    assert server.core.requests[-1].adapter is None
