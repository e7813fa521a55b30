"""Reading a GGUF file's metadata without loading it, also from damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.gguf_header import GgufError, read_header
from tests.fakes.gguf_files import gemma4_values, write_gguf


def test_scalars_texts_and_per_layer_numbers_are_read(tmp_path: Path) -> None:
    """Every kind of value that a model header holds comes back as written."""
    values = gemma4_values() | {"gemma4.rope.freq_base": 10000.0, "gemma4.flag": True}
    header = read_header(write_gguf(tmp_path / "model.gguf", "gemma4", values))

    assert header.text("general.architecture") == "gemma4"
    assert header.integer("gemma4.block_count") == 6
    assert header.values["gemma4.rope.freq_base"] == pytest.approx(10000.0)
    assert header.values["gemma4.flag"] is True
    assert header.per_layer("gemma4.attention.head_count_kv", 6, 0) == (2, 2, 2, 2, 2, 1)
    assert header.tensors == 1


def test_vocabulary_is_counted_not_kept(tmp_path: Path) -> None:
    """Texts in arrays are skipped, so a vocabulary of any size costs no memory."""
    header = read_header(write_gguf(tmp_path / "model.gguf", "gemma4", gemma4_values()))

    assert header.lengths["tokenizer.ggml.tokens"] == 5
    assert "tokenizer.ggml.tokens" not in header.values


def test_scalar_stands_for_every_layer(tmp_path: Path) -> None:
    """A per-layer key that holds one number means that number for all layers."""
    header = read_header(write_gguf(tmp_path / "model.gguf", "gemma4", {"heads": 3}))

    assert header.per_layer("heads", 4, 0) == (3, 3, 3, 3)
    assert header.per_layer("absent", 2, 7) == (7, 7)


def test_other_file_is_refused(tmp_path: Path) -> None:
    """A file that is no GGUF says so."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04 something else")

    with pytest.raises(GgufError, match="does not start with the letters GGUF"):
        read_header(path)


def test_future_version_is_refused(tmp_path: Path) -> None:
    """A format version that we do not know is named."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + (99).to_bytes(4, "little") + bytes(16))

    with pytest.raises(GgufError, match="version 99"):
        read_header(path)


def test_every_cut_of_the_header_is_refused(tmp_path: Path) -> None:
    """Wherever a download broke off inside the header, the error says that the file ends there."""
    whole = write_gguf(tmp_path / "model.gguf", "gemma4", gemma4_values(), payload=1).read_bytes()
    end = whole.rindex(b"token_embd.weight") - 8
    cut = tmp_path / "cut.gguf"
    for size in range(4, end, 7):
        cut.write_bytes(whole[:size])
        with pytest.raises(GgufError, match="ends inside its own header"):
            read_header(cut)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_header_never_gives_another_error(tmp_path: Path, data: st.DataObject) -> None:
    """Any damage gives a header or a GgufError, and neither hangs nor takes memory."""
    raw = bytearray(write_gguf(tmp_path / "model.gguf", "gemma4", gemma4_values(), payload=1).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(raw)

    try:
        read_header(path)
    except GgufError as error:
        assert str(error)
