"""A ``tensorrt_llm`` package made of ``engine/tensorrt_llm/contract.yaml``: what is not written there does not exist.

Its classes take exactly the listed arguments and have exactly the listed methods and attributes; anything else is a
TypeError or an AttributeError. What they do is the business of ``tests.fakes.tensorrt_llm_engine``.
"""

from __future__ import annotations

import dataclasses
import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

from engine.contract.entries import Contract, Entry

KEYWORD = inspect.Parameter.KEYWORD_ONLY
POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD


def signature(parameters: dict[str, Any], kind: Any = KEYWORD) -> inspect.Signature:
    """Return the signature of what takes these; a parameter whose default we do not rely on is optional, too."""
    return inspect.Signature([inspect.Parameter(name, kind, default=value) for name, value in parameters.items()])


def fields_class(entry: Entry) -> type:
    """Return a class that takes the listed fields by name and holds them."""
    accepted = signature(entry.parameters)

    def initialise(self: Any, **values: Any) -> None:
        bound = accepted.bind(**values)
        bound.apply_defaults()
        self.__dict__.update(bound.arguments)

    content = {"__init__": initialise, "__signature__": accepted, "given": property(lambda self: dict(self.__dict__))}
    return type(entry.class_name, (), content)


def proxy_class(entry: Entry) -> type:
    """Return a class that shows an object's listed methods and attributes, and nothing else of it."""

    def initialise(self: Any, behind: Any) -> None:
        object.__setattr__(self, "_behind", behind)

    def method(name: str, parameters: dict[str, Any]) -> Any:
        accepted = signature(parameters, POSITIONAL)

        def call(self: Any, *values: Any, **named: Any) -> Any:
            bound = accepted.bind(*values, **named)
            return getattr(self._behind, name)(**bound.arguments)

        call.__signature__ = accepted  # type: ignore[attr-defined]
        return call

    def attribute(name: str) -> Any:
        return property(lambda self: getattr(self._behind, name))

    content: dict[str, Any] = {"__init__": initialise, "__slots__": ("_behind",)}
    content |= {name: method(name, parameters) for name, parameters in entry.methods.items()}
    content |= {name: attribute(name) for name in (*entry.attributes, *entry.optional)}
    return type(entry.class_name, (), content)


def settings_object(family: tuple[Entry, ...], **values: Any) -> Any:
    """Return an object whose listed attributes, a base's too, can be read and set, and that has no others."""
    names = tuple(name for entry in family for name in entry.attributes)
    made = type(family[0].class_name, (), {"__slots__": names})()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def package(contract: Contract, start: Any) -> dict[str, ModuleType]:
    """Return the modules by name. ``start(arguments, classes)`` returns what stands behind an ``LLM``."""
    top, api, torch = ModuleType("tensorrt_llm"), ModuleType("tensorrt_llm.llmapi"), ModuleType("torch")
    entries = {entry.class_name: entry for entry in contract.entries}
    classes = SimpleNamespace(
        RequestOutput=proxy_class(entries["RequestOutput"]),
        CompletionOutput=proxy_class(entries["CompletionOutput"]),
        Logprob=fields_class(entries["Logprob"]),
        RequestError=type("RequestError", (RuntimeError,), {}),
        PreprocessedInputs=dataclasses.make_dataclass(
            "PreprocessedInputs",
            [*entries["PreprocessedInputs"].parameters, ("multimodal_params", Any, dataclasses.field(default=None))],
        ),
        input_processor=lambda **values: settings_object(
            (entries["Gemma4InputProcessor"], entries["BaseMultimodalInputProcessor"]), **values
        ),
        image_processor=lambda **values: settings_object((entries["Gemma4ImageProcessor"],), **values),
    )
    llm = proxy_class(entries["LLM"])
    accepted = signature(entries["LLM"].parameters | entries["TorchLlmArgs"].parameters)

    def initialise(self: Any, **values: Any) -> None:
        bound = accepted.bind(**values)
        object.__setattr__(self, "_behind", start(dict(bound.arguments), classes))

    llm.__init__, llm.__signature__ = initialise, accepted  # type: ignore[misc, attr-defined]
    top.__version__ = contract.release  # type: ignore[attr-defined]
    top.llmapi = api  # type: ignore[attr-defined]
    for name in ("KvCacheConfig", "DecodeCudaGraphConfig", "SamplingParams", "GuidedDecodingParams"):
        setattr(api, name, fields_class(entries[name]))
    api.LLM, api.RequestError = llm, classes.RequestError  # type: ignore[attr-defined]
    torch.from_numpy = lambda array: SimpleNamespace(array=array)  # type: ignore[attr-defined]
    return {"tensorrt_llm": top, "tensorrt_llm.llmapi": api, "torch": torch}
