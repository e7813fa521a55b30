"""The folder that Triton serves from: the model's configuration, written for one engine, and its code."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from engine.triton import state
from engine.triton.model_paths import reachable
from engine.triton.protocol import MODEL_NAME, model_config_pb2
from engine.wire import INPUTS, OUTPUTS

if TYPE_CHECKING:
    from config.runtime import EngineRuntime

MODEL_CODE = Path(__file__).parent / "model_repository" / MODEL_NAME
RUNTIME_PARAMETER = "runtime"
"""The parameter that holds the whole ``EngineRuntime``, as JSON."""
LINKS = "paths"
"""Folder beside the model's versions, of which Triton takes no notice: a version's name is a number."""
SHOWN = ("core", "context_tokens", "max_sequences", "max_queued")
"""What a reader of the configuration may want to know without reading the runtime."""


def model_config(runtime: EngineRuntime) -> model_config_pb2.ModelConfig:
    """Return the configuration of a model that runs this engine.

    Every input is optional to Triton, because a request may hold nothing but the question for the engine's state; the
    model itself says which tensor is missing.
    """
    config = model_config_pb2.ModelConfig(name=MODEL_NAME, backend="python", max_batch_size=0)
    config.model_transaction_policy.decoupled = True
    for name, (datatype, shape) in (INPUTS | state.INPUT).items():
        config.input.add(name=name, data_type=_data_type(datatype), dims=shape, optional=True)
    for name, (datatype, shape) in (OUTPUTS | state.OUTPUT).items():
        config.output.add(name=name, data_type=_data_type(datatype), dims=shape)
    # One instance: the core itself runs many sequences at once. The kind says nothing of the core's own devices.
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    values = runtime.model_dump(mode="json")
    for key in SHOWN:
        config.parameters[key].string_value = str(values[key])
    config.parameters[RUNTIME_PARAMETER].string_value = runtime.model_dump_json()
    config.parameters[state.STATE_QUERY].string_value = "true"
    return config


def _data_type(datatype: str) -> int:
    name = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    return int(model_config_pb2.DataType.Value(name))


def write_repository(folder: Path, runtime: EngineRuntime) -> None:
    """Write the model repository for one engine into ``folder``, over what an earlier run left there.

    Raises:
        OSError: it cannot be written.
    """
    model = folder / MODEL_NAME
    version = model / "1"
    version.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(MODEL_CODE / "1" / "model.py", version / "model.py")
    # A message's text form is the form of the file.
    config = model_config(reachable(runtime, model / LINKS))
    (model / "config.pbtxt").write_text(str(config), encoding="utf-8")
