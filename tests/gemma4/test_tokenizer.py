"""The vocabulary: special tokens by name, neutral text, bytes and incremental text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.gemma4.detokenizer import Detokenizer
from api.gemma4.errors import VocabularyError
from api.gemma4.tokenizer import Gemma4Tokenizer

TOKENS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "data" / "gemma4" / "tokens.json").read_text(encoding="utf-8")
)


def small_vocabulary(*, special: bool = True, without: str = "") -> str:
    """Return a tokenizer.json with one token per ASCII character, every byte, and Gemma 4's special tokens."""
    names = [name for name in TOKENS["special_tokens"] if name != without]
    pieces = [*names, *(f"<0x{byte:02X}>" for byte in range(256)), *(chr(code) for code in range(32, 127)), "▁"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [{"id": vocabulary[name], "content": name, **flags} for name in names],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": None,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": True, "unk_token": "<unk>"},
        }
    )


def test_special_tokens_are_found_by_name(tokenizer: Gemma4Tokenizer) -> None:
    """Every special token of the real vocabulary has the id that its name has there."""
    for name, entry in TOKENS["special_tokens"].items():
        assert tokenizer.name(entry["id"]) == name
    assert tokenizer.special.stop_ids == (1, 106, 50)


@pytest.mark.parametrize("example", TOKENS["segmentation_examples"], ids=lambda e: e["text"][:20])
def test_marked_text_is_segmented_as_the_model_was_trained(tokenizer: Gemma4Tokenizer, example: dict[str, Any]) -> None:
    """Text with spelled markers gives the reference ids, and the ids give the text back."""
    assert list(tokenizer.encode_marked(example["text"])) == example["ids"]
    assert tokenizer.decode_marked(example["ids"]) == example["text"]


@pytest.mark.parametrize("example", TOKENS["literal_markers_as_plain_text"], ids=lambda e: e["text"])
def test_a_spelled_marker_is_plain_text(tokenizer: Gemma4Tokenizer, example: dict[str, Any]) -> None:
    """Text that spells a marker becomes ordinary tokens."""
    assert list(tokenizer.encode(example["text"])) == example["ids_as_plain_text"]


@given(parts=st.lists(st.sampled_from(sorted(TOKENS["special_tokens"])) | st.text(max_size=8), max_size=8))
@settings(deadline=None)
def test_no_text_becomes_a_special_token(tokenizer: Gemma4Tokenizer, parts: list[str]) -> None:
    """Whatever text spells, no special token comes out, and nothing of the text is lost."""
    text = "".join(parts)
    ids = tokenizer.encode(text)
    assert tokenizer.special_ids.isdisjoint(ids)
    assert tokenizer.decode_marked(ids) == text.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")


def test_half_a_surrogate_pair_is_replaced(tokenizer: Gemma4Tokenizer) -> None:
    """Text that UTF-8 cannot hold, as JSON can spell it, is tokenised with a replacement character."""
    assert tokenizer.decode_marked(tokenizer.encode("a\ud83db")) == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize("special", [True, False])
def test_other_vocabularies_work_by_name(special: bool) -> None:
    """A small vocabulary with other ids works, also where its file does not mark the tokens as special."""
    small = Gemma4Tokenizer.from_json(small_vocabulary(special=special))
    assert small.special.turn_open < 30
    assert small.special_ids.isdisjoint(small.encode("<|turn>model"))
    assert small.encode_marked("<|turn>a")[0] == small.special.turn_open


@pytest.mark.parametrize("name", ["<|tool_call>", "<turn|>", "<|image|>"])
def test_a_missing_token_is_named(name: str) -> None:
    """A vocabulary without a needed token is refused with the token's name."""
    with pytest.raises(VocabularyError, match="no token"):
        Gemma4Tokenizer.from_json(small_vocabulary(without=name))


def test_a_vocabulary_without_audio_is_accepted() -> None:
    """Tokens of media that a checkpoint lacks are optional."""
    assert Gemma4Tokenizer.from_json(small_vocabulary(without="<|audio|>")).special.audio == -1


def test_a_broken_file_is_refused() -> None:
    """What is no tokenizer.json is a vocabulary error."""
    with pytest.raises(VocabularyError, match=r"tokenizer\.json"):
        Gemma4Tokenizer.from_json("{}")


@given(text=st.text(max_size=40))
@settings(deadline=None)
def test_text_comes_back_id_by_id(tokenizer: Gemma4Tokenizer, text: str) -> None:
    """Detokenising one id at a time gives the text, and never half a character."""
    text = text.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.feed(token_id) for token_id in tokenizer.encode(text)]
    assert "".join(pieces) + detokenizer.flush() == text
    assert "\N{REPLACEMENT CHARACTER}" not in pieces or "\N{REPLACEMENT CHARACTER}" in text


def test_bytes_that_are_no_character_are_replaced() -> None:
    """An incomplete character is held back, and replaced when text follows or the stream ends."""
    small = Gemma4Tokenizer.from_json(small_vocabulary())
    first, second, third = small.encode("€")
    letter = small.encode("a")[0]
    detokenizer = Detokenizer(small)
    assert [detokenizer.feed(i) for i in (first, second, third)] == ["", "", "€"]
    assert [detokenizer.feed(i) for i in (first, letter)] == ["", "\N{REPLACEMENT CHARACTER}a"]
    assert detokenizer.feed(first) == ""
    assert detokenizer.flush() == "\N{REPLACEMENT CHARACTER}"


def test_ids_outside_the_vocabulary_are_empty(tokenizer: Gemma4Tokenizer) -> None:
    """An id that the vocabulary does not have spells nothing."""
    assert [tokenizer.piece(i) for i in (-1, tokenizer.size, 10**9)] == ["", "", ""]


def test_the_cache_is_bounded() -> None:
    """Encodings are forgotten when they take too much room, oldest first, and come out the same."""
    small = Gemma4Tokenizer.from_json(small_vocabulary())
    texts = [f"{number:05d}" + "x" * 19_000 for number in range(230)]
    before = [small.encode(text) for text in texts]
    assert small._cache.characters() <= 4_000_000
    assert small.encode(texts[0]) == before[0]
