"""What we use of vLLM is what ``contract.yaml`` lists, and what an installed vLLM has."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from config.runtime import AdapterRuntime
from engine.core import EngineRequest, Sampling
from engine.vllm import contract_check
from engine.vllm.arguments import engine_arguments
from engine.vllm.sampling import sampling_arguments

PACKAGE = Path(contract_check.__file__).parent
TOUCHING = ("library.py", "scheduler.py", "cpu_worker.py")
"""The modules that import vLLM; ``core.py`` and ``following.py`` are handed its objects."""
OBJECTS = {
    # Variable of ours -> whose attributes it has, by the last part of the contract's name.
    "engine": "AsyncLLM",
    "_engine": "AsyncLLM",
    "config": "ModelConfig",
    "output": "RequestOutput",
    "completion": "CompletionOutput",
    "found": "Logprob",
    "request": "Request",
    "constraint": "StructuredOutputRequest",
    "grammar": "StructuredOutputGrammar",
    "current_platform": "Platform",
    "vllm_config": "VllmConfig",
    "cache": "CacheConfig",
    "scheduler_stats": "SchedulerStats",
    "iteration_stats": "IterationStats",
    "times": "RequestStateStats",
}
WHERE = {
    "library.py": (
        "engine",
        "config",
        "current_platform",
        "vllm_config",
        "cache",
        "scheduler_stats",
        "iteration_stats",
        "output",
        "times",
    ),
    "core.py": ("_engine",),
    "following.py": ("output", "completion", "found"),
    "scheduler.py": ("request", "constraint", "grammar"),
}


@pytest.fixture(scope="module")
def entries():
    return {entry.class_name: entry for entry in contract_check.vllm_contract().entries}


def tree(name: str) -> ast.Module:
    return ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def imported(name: str) -> dict[str, str]:
    """Return what a module imports of vLLM: name -> full name."""
    found = {}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vllm":
            found |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_everything_that_is_imported_is_listed(entries):
    """A class or function of vLLM that the contract does not name is not used."""
    used = {short for name in TOUCHING for short in imported(name)} - {"current_platform"}
    assert used
    assert used <= set(entries)
    listed = {entry.name for entry in entries.values()}
    assert all(full in listed for name in TOUCHING for short, full in imported(name).items() if short in used)


def test_nothing_else_touches_vllm():
    """Only these modules import it."""
    others = [path.name for path in PACKAGE.glob("*.py") if path.name not in TOUCHING and imported(path.name)]
    assert not others


@pytest.mark.parametrize("name", TOUCHING)
def test_calls_pass_only_listed_arguments(entries, name):
    """Every keyword of a call of something of vLLM's is in the contract, and no more positions than it has names."""
    known = imported(name)
    calls = [
        node
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known
    ]
    assert calls or name in {"scheduler.py", "cpu_worker.py"}
    for call in calls:
        entry = entries[call.func.id]
        given = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        assert given <= set(entry.parameters), (call.func.id, given)
        if entry.parameters:
            assert len(call.args) <= len(entry.parameters), call.func.id


@pytest.mark.parametrize("name", WHERE)
def test_only_listed_attributes_and_methods_are_used(entries, name):
    """What our code reads of vLLM's objects is in the contract, with the arguments of methods."""
    for node in ast.walk(tree(name)):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
        if owner not in WHERE[name]:
            continue
        entry = entries[OBJECTS[owner]]
        assert node.attr in {*entry.attributes, *entry.methods}, f"{OBJECTS[owner]}.{node.attr}"
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            value = node.func.value
            owner = value.id if isinstance(value, ast.Name) else getattr(value, "attr", "")
            if owner in WHERE[name]:
                listed = entries[OBJECTS[owner]].methods.get(node.func.attr, {})
                assert {keyword.arg for keyword in node.keywords} <= set(listed), ast.unparse(node)
                assert len(node.args) <= len(listed), ast.unparse(node)


def test_engine_arguments_are_listed(entries, vllm_runtime):
    """Every argument that some runtime leads to is one of the contract's."""
    runtimes = [vllm_runtime(), vllm_runtime(draft_path=Path("/draft"), precision="nvfp4", tensor_parallel=2)]
    runtimes.append(vllm_runtime(adapters=AdapterRuntime(source=Path("/adapters"))))
    for runtime in runtimes:
        for on_cpu in (False, True):
            given = {"tokenizer", *engine_arguments(runtime, on_cpu=on_cpu)}
            assert given <= set(entries["AsyncEngineArgs"].parameters)


def test_sampling_arguments_are_listed(entries):
    """Every argument that some request leads to is one of the contract's."""
    full = EngineRequest(
        "r",
        (1, 2, 3),
        4,
        sampling=Sampling(seed=1, logit_bias={1: 2.0}),
        stop_ids=(1,),
        grammar="start: A",
        grammar_begun=1,
        logprobs=2,
        min_tokens=1,
    )
    for request in (full, EngineRequest("r", (1,), 4)):
        assert set(sampling_arguments(request, 1)) <= set(entries["SamplingParams"].parameters)


def test_the_installed_vllm_has_it_all(vllm_python):
    """The command that compares finds no difference."""
    command = (str(vllm_python), "-m", "engine.vllm.contract_check")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.strip().splitlines()[-1].endswith(" 0 differences"), done.stdout + done.stderr[-2000:]
    assert done.returncode == 0
