"""Which adapters are taken from their folder, what becomes of broken ones, and when copies go; no vLLM is needed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from config.runtime import AdapterRuntime
from engine.vllm.adapter_files import CONFIG, WEIGHTS, AdapterError, copy_adapter
from engine.vllm.adapter_folder import AdapterFolder
from engine.vllm.adapters import Adapters
from engine.vllm.checkpoint import linear_shapes
from tests.fakes.adapters import read_tensors, write_adapter, write_tensors

DEMO = Path(__file__).parents[3] / "demo" / "checkpoints"
SHAPES = {
    "0.self_attn.q_proj": (8, 6),
    "0.self_attn.k_proj": (4, 6),
    "0.self_attn.v_proj": (4, 6),
    "1.self_attn.k_proj": (4, 6),
    "1.mlp.down_proj": (6, 10),
}
PREFIX = "base_model.model.model.language_model.layers."
PATIENCE_S = 60


def halves(module: str, rank: int = 2, prefix: str = PREFIX, kind: type = np.float32):
    """Return the two tensors of one matrix's change."""
    outputs, inputs = SHAPES[module]
    return {
        f"{prefix}{module}.lora_A.weight": np.arange(rank * inputs, dtype=kind).reshape(rank, inputs),
        f"{prefix}{module}.lora_B.weight": np.arange(outputs * rank, dtype=kind).reshape(outputs, rank),
    }


def good(folder: Path, **config) -> Path:
    return write_adapter(folder, halves("0.self_attn.q_proj") | halves("1.mlp.down_proj"), **{"r": 2} | config)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def opened(source):
    """Return a factory of folders of adapters that are closed after the test."""
    folders = []

    def make(**changes):
        runtime = AdapterRuntime(source=source, **{"max_rank": 4, "reserved_names": ("the-model",)} | changes)
        folders.append(AdapterFolder(runtime, SHAPES))
        return folders[-1]

    yield make
    for folder in folders:
        folder.close()


def reasons(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- one adapter -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", [PREFIX, "base_model.model.model.layers.", "base_model.model.language_model.model.layers."]
)
def test_copy_has_the_same_weights_under_one_spelling(source, tmp_path, prefix):
    """Adapters are trained on the whole model or on its text half, in newer and older versions of transformers."""
    tensors = halves("0.self_attn.q_proj", prefix=prefix, kind=np.float16) | halves("1.mlp.down_proj", prefix=prefix)
    write_adapter(source / "a", tensors, r=2, lora_alpha=3, use_rslora=True)

    copy_adapter(source / "a", source, tmp_path / "copy", SHAPES, 4)

    copied = read_tensors(tmp_path / "copy" / WEIGHTS)
    assert set(copied) == {name.replace(prefix, PREFIX) for name in tensors}
    for name, values in tensors.items():
        np.testing.assert_array_equal(copied[name.replace(prefix, PREFIX)], values, strict=True)
    config = json.loads((tmp_path / "copy" / CONFIG).read_text())
    assert config == {
        "peft_type": "LORA", "bias": "none", "r": 2, "lora_alpha": 3, "use_rslora": True,
        "target_modules": ["down_proj", "q_proj"],
    }  # fmt: skip


def test_change_of_keys_that_are_values_too_changes_both(source, tmp_path):
    """Global layers have no projection of values; where there is one, nothing is added."""
    tensors = halves("0.self_attn.k_proj") | halves("1.self_attn.k_proj")
    write_adapter(source / "a", tensors, r=2)

    copy_adapter(source / "a", source, tmp_path / "copy", SHAPES, 4)

    copied = read_tensors(tmp_path / "copy" / WEIGHTS)
    assert copied.keys() - tensors.keys() == {f"{PREFIX}1.self_attn.v_proj.lora_{half}.weight" for half in "AB"}
    for half in "AB":
        keys, values = (copied[f"{PREFIX}1.self_attn.{name}_proj.lora_{half}.weight"] for name in "kv")
        np.testing.assert_array_equal(keys, values)
    assert "v_proj" not in {name for name in copied if ".0." in name}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "LOHA"}, "adapter_config.json: peft_type is 'LOHA'; only LORA is served"),
        ({"r": 5}, "adapter_config.json: the rank is 5; NIM_MAX_LORA_RANK allows 4"),
        ({"r": 0}, "r is 0, not a whole number from 1 on"),
        ({"r": True}, "r is True, not a whole number"),
        ({"r": None}, "r is None"),
        ({"r": 1}, "lora_A of layers.0.self_attn.q_proj has the shape [2, 6]; for this model and rank it is [1, 6]"),
        ({"lora_alpha": "16"}, "lora_alpha is '16', not a number"),
        ({"use_dora": True}, "use_dora is set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern is set"),
        ({"target_parameters": ["experts.down_proj"]}, "target_parameters is set"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
    ],
)
def test_configuration_that_is_not_served_is_named(source, tmp_path, config, reason):
    """The message holds the file, the field and its value."""
    good(source / "a", **config)
    with pytest.raises(AdapterError) as caught:
        copy_adapter(source / "a", source, tmp_path / "copy", SHAPES, 4)
    assert reason in str(caught.value)
    assert "adapter_" in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({}, "it holds no tensor"),
        ({"x": np.zeros(2, np.float32)}, "x is no change of attention or dense MLP"),
        (
            {f"{PREFIX}0.experts.down_proj.lora_A.weight": np.zeros((2, 6), np.float32)},
            "experts.down_proj.lora_A.weight is no change of attention or dense MLP",
        ),
        (
            {"base_model.model.model.vision_tower.encoder.layers.0.self_attn.q_proj.linear.lora_A.weight": np.zeros(2)},
            "vision_tower",
        ),
        ({f"{PREFIX}0.self_attn.q_proj.lora_A.weight": np.zeros((2, 6), np.float32)}, "has lora_A only"),
        (
            {name.replace(".0.", ".7."): values for name, values in halves("0.self_attn.q_proj").items()},
            "the model has no layers.7.self_attn.q_proj",
        ),
        (
            {name.replace(".0.", ".1.").replace("k_", "v_"): v for name, v in halves("0.self_attn.k_proj").items()},
            "the model has no layers.1.self_attn.v_proj",
        ),
        (
            {name: values[:1] if "_B" in name else values for name, values in halves("0.self_attn.q_proj").items()},
            "lora_B of layers.0.self_attn.q_proj has the shape [1, 2]; for this model and rank it is [8, 2]",
        ),
    ],
)
def test_weights_of_something_else_are_named(source, tmp_path, tensors, reason):
    """Another model's, experts', the vision tower's, or half of a change."""
    folder = good(source / "a")
    write_tensors(folder / WEIGHTS, {name: values.astype(np.float32) for name, values in tensors.items()})
    with pytest.raises(AdapterError) as caught:
        copy_adapter(folder, source, tmp_path / "copy", SHAPES, 4)
    assert str(caught.value).startswith(f"{WEIGHTS}: ")
    assert reason in str(caught.value)


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def _links_out(folder: Path) -> None:
    outside = folder.parent.parent / "outside"
    (folder / WEIGHTS).rename(outside)
    (folder / WEIGHTS).symlink_to(outside)


def _pipe(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


def _cut(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1)


def _extended(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_pickled, "adapter_model.safetensors cannot be read: No such file or directory"),
        (_links_out, "adapter_model.safetensors is a link that leads out of the folder of adapters"),
        (_pipe, "adapter_model.safetensors is not a plain file"),
        (_cut, "and its header describes"),
        (_extended, "and its header describes"),
        (lambda folder: (folder / CONFIG).unlink(), "adapter_config.json cannot be read"),
        (lambda folder: (folder / CONFIG).write_text("{"), "config.json is not JSON"),
        (lambda folder: (folder / CONFIG).write_text("[" * 100_000), "adapter_config.json is not JSON"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "adapter_config.json is not a JSON object"),
        (lambda folder: (folder / CONFIG).write_text(" " * 2**21), "adapter_config.json has 2097152 bytes"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b""), "it is no safetensors file"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"\2" + bytes(7) + b"[]"), "is not a JSON object"),
    ],
)
def test_spoiled_files_are_named(source, tmp_path, spoil, reason):
    """Nothing but two plain files within the folder is read, and nothing that they hold is run."""
    folder = good(source / "a")
    spoil(folder)
    with pytest.raises(AdapterError) as caught:
        copy_adapter(folder, source, tmp_path / "copy", SHAPES, 4)
    assert reason in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_weights_never_raise_anything_else(data):
    """Whatever the bytes are, there is a copy or a reason."""
    with tempfile.TemporaryDirectory() as name:
        folder = good(Path(name) / "source" / "a")
        content = bytearray((folder / WEIGHTS).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (folder / WEIGHTS).write_bytes(content)
        try:
            copy_adapter(folder, folder.parent, Path(name) / "copy", SHAPES, 4)
        except AdapterError as error:
            assert str(error).startswith(WEIGHTS)


def test_shapes_are_read_from_the_checkpoint():
    """Attention and dense MLP of the text model, by layer; the demo model's global layer has no values of its own."""
    shapes = linear_shapes(DEMO / "demo-moe")
    assert shapes["0.self_attn.q_proj"] == (128, 128)
    assert shapes["5.self_attn.q_proj"] == (256, 128)
    assert shapes["0.mlp.gate_proj"] == (192, 128)
    assert "0.self_attn.v_proj" in shapes
    assert "5.self_attn.v_proj" not in shapes
    assert len(shapes) == 6 * 7 - 1


# --- the folder ------------------------------------------------------------------------------------------------------


def test_adapters_are_found_once_changed_and_gone(source, opened, caplog):
    """A look tells what is new since the one before; each version is a copy of its own."""
    folder = opened()
    good(source / "poet")
    good(source / ".hidden")
    (source / "README.md").write_text("no folder")

    (first,) = folder.look().found
    assert (first.name, first.unique_name) == ("poet", "poet#1")
    assert (folder.look().found, folder.look().gone) == ([], [])

    good(source / "poet", lora_alpha=99.5)
    (second,) = folder.look().found
    assert (second.name, second.unique_name) == ("poet", "poet#2")
    assert json.loads((first.folder / CONFIG).read_text())["lora_alpha"] == 32
    assert json.loads((second.folder / CONFIG).read_text())["lora_alpha"] == 99.5

    shutil.rmtree(source / "poet")
    assert (folder.look().gone, folder.look().gone) == (["poet"], [])
    assert first.folder.exists()
    folder.close()
    assert not first.folder.exists()
    assert not reasons(caplog)


def test_broken_adapter_is_named_once_and_taken_when_it_is_whole(source, opened, caplog):
    """As it is while an upload goes on."""
    folder = opened()
    (source / "late").mkdir()
    for _ in range(3):
        assert not folder.look().found
    assert reasons(caplog) == [
        f"the adapter {source}/late is left out: adapter_config.json cannot be read: No such file or directory"
    ]
    good(source / "late")
    assert [copy.name for copy in folder.look().found] == ["late"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("the-model", "it has a name of the model itself"),
        ("with space", "its name may have letters, digits"),
        ("-first", "its name may have letters, digits"),
        ("ä", "its name may have letters, digits"),
        ("x" * 129, "its name may have letters, digits"),
    ],
)
def test_names_that_cannot_be_served(source, opened, caplog, name, reason):
    """The model's own, and what is no plain word."""
    good(source / name)
    good(source / "fine")
    assert [copy.name for copy in opened().look().found] == ["fine"]
    (line,) = reasons(caplog)
    assert f"{source}/{name} is left out: {reason}" in line


def test_links_within_the_folder_are_followed(source, opened, tmp_path, caplog):
    """As Kubernetes mounts volumes; a folder that lies elsewhere is left out."""
    good(source / "..2026" / "poet")
    (source / "..data").symlink_to("..2026")
    (source / "poet").symlink_to("..data/poet")
    good(tmp_path / "elsewhere")
    (source / "stranger").symlink_to(tmp_path / "elsewhere")
    assert [copy.name for copy in opened().look().found] == ["poet"]
    (line,) = reasons(caplog)
    assert "stranger is left out: adapter_config.json is a link that leads out of the folder of adapters" in line


def test_folder_that_vanishes_changes_nothing(source, opened, caplog):
    """A volume that is away for a moment takes no adapter with it, and is told of once."""
    good(source / "poet")
    folder = opened()
    folder.look()
    source.rename(source.with_name("away"))
    changes = [folder.look(), folder.look()]
    assert all(not (change.found or change.gone) for change in changes)
    assert reasons(caplog) == [f"the folder of adapters {source} cannot be read: No such file or directory"]
    source.with_name("away").rename(source)
    assert not folder.look().found


def test_copies_that_a_killed_process_left_are_removed(source, opened, tmp_path, monkeypatch):
    """Those of one that lives are not, nor a folder that is just being made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    good(source / "poet")
    living = opened()
    (copy,) = living.look().found
    left = tmp_path / "g4nim-adapters-left"
    good(left / "1")
    (left / "lock").touch()
    (tmp_path / "g4nim-adapters-new").mkdir()

    opened()

    assert not left.exists()
    assert copy.folder.exists()
    assert (tmp_path / "g4nim-adapters-new").exists()


# --- what is served --------------------------------------------------------------------------------------------------


def serve(folder, body, *, refuse=(), refresh_s=0.0):
    """Run a coroutine with adapters whose engine refuses some by name."""

    async def load(handle):
        if handle.partition("#")[0] in refuse:
            raise AdapterError("the engine does not like it")

    async def main():
        adapters = Adapters(folder, refresh_s, lambda copy: copy.unique_name, load)
        try:
            await adapters.settled()
            return await body(adapters)
        finally:
            await adapters.close()

    return asyncio.run(main())


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


def test_first_look_is_over_when_settled(source, opened, caplog):
    """What the engine refuses to load is left out, too."""
    good(source / "b")
    good(source / "a")
    good(source / "odd")

    async def body(adapters):
        return adapters.names

    assert serve(opened(), body, refuse={"odd"}) == ("a", "b")
    assert reasons(caplog) == [f"the adapter {source}/odd is left out: the engine does not like it"]


def test_copy_stays_while_a_sequence_uses_it(source, opened):
    """One that has gone takes no new sequences; its files go when its last one has ended."""
    good(source / "poet")

    async def body(adapters):
        version = adapters.take("poet")
        copy = version.copy.folder
        shutil.rmtree(source / "poet")
        await until(lambda: adapters.names == ())
        good(source / "marker")
        await until(lambda: adapters.names == ("marker",))
        good(source / "second")
        await until(lambda: adapters.names == ("marker", "second"))
        assert copy.exists()
        version.leave()
        await until(lambda: not copy.exists())

    serve(opened(), body, refresh_s=0.01)


def test_new_version_takes_over(source, opened):
    """Sequences keep the version with which they began; a broken new one changes nothing."""
    good(source / "poet")

    async def body(adapters):
        old = adapters.take("poet")
        # In one move: a look between two changes would find a version more.
        (good(source / ".next", lora_alpha=5) / CONFIG).replace(source / "poet" / CONFIG)
        await until(lambda: adapters.take("poet").handle != old.handle)
        new = adapters.take("poet").handle
        (source / "poet" / CONFIG).write_text("{")
        good(source / "marker")
        await until(lambda: "marker" in adapters.names)
        return old.handle, new, adapters.take("poet").handle

    assert serve(opened(), body, refresh_s=0.01) == ("poet#1", "poet#2", "poet#2")


def test_nothing_is_looked_for_again_without_an_interval(source, opened):
    """NIM_PEFT_REFRESH_INTERVAL unset or 0 looks once."""
    good(source / "poet")

    async def body(adapters):
        assert adapters._looking is None
        await adapters.settled()
        return adapters.names

    assert serve(opened(), body) == ("poet",)
