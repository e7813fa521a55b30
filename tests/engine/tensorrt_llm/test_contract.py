"""The contract's checker, on packages and source trees that hold it and on ones that do not."""

from __future__ import annotations

import dataclasses
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine.contract.entries import UNSTATED, Contract, Entry
from engine.contract.installed import installed_differences
from engine.contract.source import source_differences
from engine.tensorrt_llm import contract_check
from tests.fakes.tensorrt_llm_contract import package


def own(contract: Contract) -> list[Entry]:
    return [entry for entry in contract.entries if entry.name.startswith("tensorrt_llm")]


def spelled(parameters: dict[str, Any], sign: str) -> list[str]:
    return [name if value is UNSTATED else f"{name}{sign}{value!r}" for name, value in parameters.items()]


def declaration(entry: Entry) -> str:
    """Return the source of a class as TensorRT-LLM might write it."""
    if entry.kind == "constant":
        return f"{entry.class_name} = '0'\n"
    lines = [f"class {entry.defined_as}(Base):"]
    if entry.kind == "class":
        lines += [f"    def __init__(self, {', '.join(('*', *spelled(entry.parameters, '=')))}, **kwargs):"]
        lines += [f"        self.{name} = None" for name in entry.attributes] or ["        pass"]
    else:
        # The first default stands within a call, as pydantic's and dataclasses' fields do.
        for name, value in entry.parameters.items():
            lines.append(f"    {name}: int" + ("" if value is UNSTATED else f" = Field(default={value!r}, status='x')"))
    for name, parameters in entry.methods.items():
        lines += [f"    def {name}({', '.join(('self', *spelled(parameters, '=')))}): ..."]
    return "\n".join(lines).replace("*, , **kwargs", "**kwargs").replace("*, **kwargs", "**kwargs") + "\n"


@pytest.fixture
def tree(contract: Contract, tmp_path: Path) -> Path:
    """A source tree that holds the whole contract."""
    for entry in own(contract):
        path = tmp_path / entry.source
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(declaration(entry))
    return tmp_path


def test_a_tree_that_holds_the_contract_has_no_difference(tree, capsys):
    """The command says so with status 0."""
    assert contract_check.main(["--source", str(tree)]) == 0
    assert capsys.readouterr().out.endswith(": 0 differences\n")


@pytest.mark.parametrize(
    ("path", "old", "new", "difference"),
    [
        ("sampling_params.py", "prompt_ignore_length", "renamed", "SamplingParams: no parameter prompt_ignore_length"),
        ("sampling_params.py", "default=32", "default=16", "SamplingParams: max_tokens is 16 by default, not 32"),
        ("llmapi/llm.py", "cache_salt", "salt", "LLM.generate_async: no parameter cache_salt"),
        ("llmapi/llm.py", "def shutdown", "def close", "LLM: no method shutdown"),
        ("executor/result.py", "self.cached_tokens", "self.reused", "RequestOutput: no attribute cached_tokens"),
        ("executor/result.py", "class CompletionOutput", "class Output", "no class CompletionOutput"),
        ("llmapi/llm_args.py", "class ", "class class ", "is no Python"),
        ("version.py", "__version__", "VERSION", "tensorrt_llm.__version__: not in"),
    ],
)
def test_every_kind_of_difference_is_named(tree, capsys, path, old, new, difference):
    """One line each, and status 1."""
    file = tree / "tensorrt_llm" / path
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert contract_check.main(["--source", str(tree)]) == 1
    assert difference in capsys.readouterr().out


def test_a_missing_file_is_named(contract, tmp_path):
    """A tree of something else."""
    differences = [line for entry in own(contract) for line in source_differences(entry, tmp_path)]
    assert len(differences) == len(own(contract))
    assert all("cannot be read" in line for line in differences)


@pytest.fixture
def installed(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    modules = package(contract, lambda *_: None)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules


def named(contract: Contract, *names: str) -> list[Entry]:
    return [entry for entry in contract.entries if entry.class_name in names]


def test_an_installed_package_is_asked_for_its_signatures(contract, installed):
    """Classes, fields and methods of the package that Python would import."""
    entries = named(contract, "LLM", "SamplingParams", "KvCacheConfig", "GuidedDecodingParams", "__version__")
    assert len(entries) == 5
    assert [line for entry in entries for line in installed_differences(entry)] == []
    installed["tensorrt_llm.llmapi"].SamplingParams = dataclasses.make_dataclass("SamplingParams", [("n", int, 2)])
    changed = list(installed_differences(named(contract, "SamplingParams")[0]))
    assert "tensorrt_llm.llmapi.SamplingParams: n is 2 by default, not 1" in changed
    assert "tensorrt_llm.llmapi.SamplingParams: no parameter seed" in changed


def test_without_the_package_every_entry_is_missing(capsys):
    """On a machine without TensorRT-LLM the command says what it looked for."""
    if "tensorrt_llm" in sys.modules or find_spec("tensorrt_llm"):
        pytest.skip("TensorRT-LLM is installed here")
    assert contract_check.main([]) == 1
    assert "tensorrt_llm.llmapi.LLM: not found" in capsys.readouterr().out


def test_the_installed_tensorrt_llm_holds_the_contract(capsys):
    """Runs where TensorRT-LLM is installed, as in its container; needs no GPU there."""
    pytest.importorskip("tensorrt_llm")
    assert contract_check.main([]) == 0, capsys.readouterr().out
