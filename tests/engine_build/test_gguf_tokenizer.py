"""Rebuilding ``tokenizer.json`` from a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gguf import GGUFWriter, TokenType
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engine_build.errors import GGUFFileError
from engine_build.gguf_export import export_checkpoint
from engine_build.gguf_fields import read_fields
from engine_build.gguf_tokenizer import write_tokenizer_json

if TYPE_CHECKING:
    from tests.engine_build.conftest import Checkpoint


def write_vocabulary(path: Path, tokens: list[str], merges: list[str], model: str = "gemma4") -> None:
    """Write a GGUF file that holds nothing but a vocabulary; ``<unk>`` is its first token."""
    writer = GGUFWriter(path, "gemma4")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token.startswith("<") else TokenType.NORMAL for token in tokens])
    if merges:
        writer.add_token_merges(merges)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_rebuilt_tokenizer_is_the_one_that_was_exported(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Vocabulary, merges, special tokens, splitting and decoding come back as they were in the checkpoint."""
    model = export_checkpoint(checkpoint.directory, tmp_path / "out")[0]
    write_tokenizer_json(model, tmp_path / "rebuilt.json")
    rebuilt = json.loads((tmp_path / "rebuilt.json").read_text(encoding="utf-8"))
    original = Tokenizer.from_file(str(checkpoint.directory / "tokenizer.json"))
    assert rebuilt == json.loads(original.to_str())


@pytest.fixture(scope="session")
def tokenizer_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokenizer]:
    """Return a tokenizer, and the same one after a GGUF file."""
    from tests.engine_build.conftest import make_checkpoint  # noqa: PLC0415 -- pytest loads conftest by path first

    directory = tmp_path_factory.mktemp("pair")
    checkpoint = make_checkpoint(directory / "hf")
    model = export_checkpoint(checkpoint.directory, directory / "out")[0]
    write_tokenizer_json(model, directory / "rebuilt.json")
    original = Tokenizer.from_file(str(checkpoint.directory / "tokenizer.json"))
    return original, Tokenizer.from_file(str(directory / "rebuilt.json"))


PIECES = st.sampled_from(
    ["the", " the ", "thin", "12", "\n\n", "<|turn>", "<turn|>", "<|tool_call", '<|"|>', "\u2581", "é", "日"]
)


@given(parts=st.lists(PIECES | st.text(max_size=8), max_size=12))
def test_rebuilt_tokenizer_gives_the_same_ids(tokenizer_pair: tuple[Tokenizer, Tokenizer], parts: list[str]) -> None:
    """Any text, with special tokens spelled in it or not, has the same ids and decodes to the same text."""
    original, rebuilt = tokenizer_pair
    text = "".join(parts)
    ids = original.encode(text, add_special_tokens=False).ids
    assert rebuilt.encode(text, add_special_tokens=False).ids == ids
    assert rebuilt.decode(ids, skip_special_tokens=False) == original.decode(ids, skip_special_tokens=False)


def test_spaces_inside_merges_survive(tmp_path: Path) -> None:
    """A stored substitute is a space where only that makes a token, and itself where it is a letter of its own."""
    write_vocabulary(tmp_path / "v.gguf", ["<unk>", "a", " ", "a ", "Ġ", "Ġa"], ["a Ġ", "Ġ a"])
    write_tokenizer_json(tmp_path / "v.gguf", tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["model"]["merges"] == [["a", " "], ["Ġ", "a"]]


@pytest.mark.parametrize(
    ("tokens", "merges", "model", "complaint"),
    [
        (["<unk>", "a"], ["a a"], "llama", "tokenizer.ggml.model is 'llama'"),
        (["<unk>", "a", "aa"], [], "gemma4", "tokenizer.ggml.merges is missing"),
        (["<unk>", "a", "aa"], ["aa"], "gemma4", "an entry is not a pair"),
        (["<unk>", "a", "aa"], ["a b"], "gemma4", "'ab' is not a token"),
        (["<unk>", "a", "a"], ["a a"], "gemma4", "has a token twice"),
    ],
)
def test_vocabulary_that_is_not_a_gemma_4s_is_refused(
    tmp_path: Path, tokens: list[str], merges: list[str], model: str, complaint: str
) -> None:
    """What is missing or wrong is named, and a tokenizer that exists is left alone."""
    write_vocabulary(tmp_path / "v.gguf", tokens, merges, model)
    (tmp_path / "t.json").write_text("old", encoding="utf-8")
    with pytest.raises(GGUFFileError, match=complaint):
        write_tokenizer_json(tmp_path / "v.gguf", tmp_path / "t.json")
    assert (tmp_path / "t.json").read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.json", "v.gguf"]


def test_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """A GGUF file that ends inside its fields gives an error that names it, wherever the cut is."""
    path = tmp_path / "v.gguf"
    write_vocabulary(path, ["<unk>", "a", "aa", "\u2581"], ["a a"])
    whole = path.read_bytes()
    fields = read_fields(path)
    assert fields["tokenizer.ggml.tokens"] == ["<unk>", "a", "aa", "\u2581"]
    end = whole.index(b"tokenizer.ggml.unknown_token_id") + len(b"tokenizer.ggml.unknown_token_id") + 8
    for length in range(end):
        path.write_bytes(whole[:length])
        with pytest.raises(GGUFFileError, match=r"v\.gguf"):
            read_fields(path)


@given(position=st.integers(0, 400), value=st.integers(0, 255))
def test_damaged_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, position: int, value: int) -> None:
    """One wrong byte anywhere gives fields or a clear error, never another exception and never endless work."""
    path = tmp_path_factory.mktemp("damaged") / "v.gguf"
    write_vocabulary(path, ["<unk>", "a", "aa", "\u2581"], ["a a"])
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    try:
        fields = read_fields(path)
    except GGUFFileError as error:
        assert str(path) in error.message
    else:
        assert isinstance(fields, dict)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A path that does not exist gives the path and the reason."""
    with pytest.raises(GGUFFileError, match=r"absent\.gguf: cannot be read: No such file"):
        read_fields(tmp_path / "absent.gguf")
