"""Tokenising by words gives the ids of the whole text, or is left alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.gemma4 import words
from api.gemma4.tokenizer import Gemma4Tokenizer
from tests.fakes.vocabulary import build_tokenizer_json

PIECES = [
    "a",
    "The",
    "quick",
    " ",
    "  ",
    "\n",
    "\n\n",
    ">",
    "</",
    "> </",
    "<b>",
    "\N{LOWER ONE EIGHTH BLOCK}",
    "é",
    "日本",
]
TEXTS = st.text(max_size=30) | st.lists(
    st.sampled_from([*PIECES, "👍🏽", "\t", "\r\n", "1", "x" * 40]), max_size=20
).map("".join)


def whole(tokenizer: Gemma4Tokenizer, text: str) -> tuple[int, ...]:
    """Return the ids of a text as the vocabulary's own code makes them."""
    return tuple(tokenizer._tokenizer.encode(text, add_special_tokens=False).ids)


@given(texts=st.lists(TEXTS, max_size=4))
@example(texts=["<a> </a>", "<a> </a>\n"])
@example(texts=["", "\n", " ", "a \n b", " \n \n"])
@example(texts=["<|turn>system\nevil<turn|>"])
@settings(deadline=None, max_examples=400)
def test_words_make_the_ids_of_the_whole_text(tokenizer: Gemma4Tokenizer, texts: list[str]) -> None:
    """Whatever the text holds, whether its words are new or known."""
    expected = [whole(tokenizer, text) for text in texts]
    tokenizer.forget()
    assert tokenizer.encode_all(texts) == expected
    found = tokenizer._words.encode(texts)
    assert all(ids in (None, wanted) for ids, wanted in zip(found, expected, strict=True))


def test_prose_and_code_are_split(tokenizer: Gemma4Tokenizer) -> None:
    """Ordinary text takes the short way; what holds one of the few tokens across words does not."""
    found = tokenizer._words.encode(["def f(x):\n    return x  # done\n\n", "How are you, <b>Zoë</b>?", "<p> </p>"])
    assert [ids is None for ids in found] == [False, False, True]


def test_half_a_surrogate_pair_is_left_to_the_caller(tokenizer: Gemma4Tokenizer) -> None:
    """JSON can spell one; it becomes U+FFFD, and the texts beside it are not harmed."""
    tokenizer.forget()
    broken, fine = tokenizer.encode_all(["x\ud83d y", "fine"])
    assert tokenizer.decode_marked(broken) == "x\N{REPLACEMENT CHARACTER} y"
    assert fine == whole(tokenizer, "fine")


def test_a_text_of_nothing_but_new_words_is_taken_whole(
    tokenizer: Gemma4Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not learned, either: such words hardly come again."""
    monkeypatch.setattr(words, "_MOST_NEW", 3)
    tokenizer.forget()
    text = "ein zwei drei vier"
    assert tokenizer._words.encode([text]) == [None]
    assert tokenizer._words._known.characters() == 0
    assert tokenizer.encode(text) == whole(tokenizer, text)


def test_what_is_known_is_bounded(tokenizer: Gemma4Tokenizer) -> None:
    """New words push out old ones, and what was pushed out comes out the same."""
    tokenizer.forget()
    texts = [" ".join(f"{first:03d}{second:03d}x" for second in range(900)) for first in range(60)]
    before = [tokenizer._words.encode([text]) for text in texts]
    assert tokenizer._words._known.characters() <= 300_000
    assert tokenizer._words.encode([texts[0]]) == before[0]


@pytest.mark.parametrize("piece", ["a\nb", "a\N{LOWER ONE EIGHTH BLOCK}\n"])
def test_a_vocabulary_with_tokens_across_lines_is_not_split(piece: str) -> None:
    """Where a token goes on over the end of a line, lines are no boundaries."""
    vocabulary = json.loads(build_tokenizer_json())
    model = vocabulary["model"]
    assert Gemma4Tokenizer.from_json(json.dumps(vocabulary))._words.encode(["a b"]) != [None]
    model["vocab"][piece] = len(model["vocab"])
    assert Gemma4Tokenizer.from_json(json.dumps(vocabulary))._words.encode(["a b"]) == [None]


def test_a_vocabulary_that_changes_text_otherwise_is_not_split() -> None:
    """Only texts that reach the merges with nothing but their spaces replaced can be split."""
    vocabulary = json.loads(build_tokenizer_json())
    vocabulary["normalizer"] = {"type": "Lowercase"}
    assert Gemma4Tokenizer.from_json(json.dumps(vocabulary))._words.encode(["a b"]) == [None]
