"""The model repository that is written for Triton, and the text of the model's state."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from google.protobuf import text_format

from config.runtime import EngineRuntime
from engine.core import EngineLimits, EngineStats
from engine.errors import EngineError, QueueFullError
from engine.tensors import output_writer
from engine.triton.protocol import model_config_pb2, service_pb2
from engine.triton.repository import write_repository
from engine.triton.state import STATE_ANSWER, STATE_QUERY, EngineState, decode_state, encode_state
from engine.wire import INPUTS, OUTPUTS, encode_error

RUNTIME = EngineRuntime(
    model_path='/models/a "quoted" name/model.gguf',
    tokenizer_path="/models/tokenizer.json",
    endpoint="127.0.0.1:8001",
    context_tokens=4096,
    max_sequences=12,
)
STATE = EngineState(
    is_healthy=True,
    limits=EngineLimits(64, 2, 2, 100, vision=False, grammar=True, logprobs=True, core="llama_cpp", model="m"),
    stats=EngineStats(1, 2, 3, 4, 5, 6),
)


@pytest.fixture
def config(tmp_path):
    write_repository(tmp_path, RUNTIME)
    text = (tmp_path / "gemma4" / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_tensors_are_those_of_the_wire(config):
    """Names, datatypes and shapes are the embedded engine's, and there is the question for the state; all optional."""
    inputs = {
        entry.name: (model_config_pb2.DataType.Name(entry.data_type), tuple(entry.dims)) for entry in config.input
    }
    assert all(entry.optional for entry in config.input)
    for name, (datatype, shape) in INPUTS.items():
        assert inputs.pop(name) == (f"TYPE_{datatype.replace('BYTES', 'STRING')}", shape)
    assert set(inputs) == {STATE_QUERY}
    assert {entry.name for entry in config.output} == {*OUTPUTS, STATE_ANSWER}


def test_the_model_is_decoupled_and_runs_once(config):
    """Batching is the core's: one instance, no batch dimension, responses whenever there are some."""
    assert config.name == "gemma4"
    assert config.backend == "python"
    assert config.max_batch_size == 0
    assert config.model_transaction_policy.decoupled
    assert [group.count for group in config.instance_group] == [1]


def test_the_runtime_travels_in_the_configuration(config):
    """The model finds everything in its own configuration, whatever characters a path has."""
    assert EngineRuntime.model_validate_json(config.parameters["runtime"].string_value) == RUNTIME
    assert config.parameters["max_sequences"].string_value == "12"


@pytest.mark.parametrize("name", ["mödel.gguf", "größe/model.gguf"])
def test_paths_are_such_that_the_model_can_open_them(tmp_path, monkeypatch, name):
    """Triton's interpreter knows ASCII names only and runs elsewhere: links stand for others, and all are absolute."""
    file = tmp_path / "files" / name
    file.parent.mkdir(parents=True)
    file.write_text("weights", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "files")
    runtime = RUNTIME.model_copy(update={"model_path": Path(name), "tokenizer_path": Path("tokenizer.json")})
    for _ in range(2):
        write_repository(tmp_path / "models", runtime)
    text = (tmp_path / "models" / "gemma4" / "config.pbtxt").read_text(encoding="utf-8")
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    found = EngineRuntime.model_validate_json(config.parameters["runtime"].string_value)
    assert found.tokenizer_path == tmp_path / "files" / "tokenizer.json"
    assert found.model_path is not None
    assert str(found.model_path).isascii()
    assert found.model_path.read_text(encoding="utf-8") == "weights"


def test_writing_again_replaces(tmp_path):
    """A folder of an earlier run can be used."""
    write_repository(tmp_path, RUNTIME)
    write_repository(tmp_path, RUNTIME.model_copy(update={"context_tokens": 8192}))
    assert "8192" in (tmp_path / "gemma4" / "config.pbtxt").read_text(encoding="utf-8")
    assert (tmp_path / "gemma4" / "1" / "model.py").is_file()


def answer(text):
    message = service_pb2.ModelStreamInferResponse()
    output_writer(message.infer_response).texts(STATE_ANSWER, (text,))
    return message


def test_a_state_survives_the_wire():
    assert decode_state(answer(encode_state(STATE))) == STATE
    sick = dataclasses.replace(STATE, is_healthy=False)
    assert not decode_state(answer(encode_state(sick))).is_healthy


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b'{"is_healthy": true, "limits": {"x": 1}, "stats": {}}'])
def test_a_malformed_state_is_an_engine_error(text):
    with pytest.raises(EngineError, match="state"):
        decode_state(answer(text))


def test_an_error_instead_of_a_state_is_raised():
    message = service_pb2.ModelStreamInferResponse(error_message=encode_error(QueueFullError("full")))
    with pytest.raises(QueueFullError):
        decode_state(message)
