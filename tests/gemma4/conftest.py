"""The real Gemma 4 vocabulary and the vectors, loaded once per session."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from api.gemma4.tokenizer import Gemma4Tokenizer
from tests.gemma4.matching import GrammarMatcher

DATA = Path(__file__).parent.parent / "data" / "gemma4"


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    """Return the text of the real vocabulary's ``tokenizer.json``."""
    return lzma.decompress((DATA / "tokenizer.json.xz").read_bytes()).decode()


@pytest.fixture(scope="session")
def tokenizer(tokenizer_json: str) -> Gemma4Tokenizer:
    """Return the real vocabulary."""
    return Gemma4Tokenizer.from_json(tokenizer_json)


def vectors(name: str) -> list[dict[str, object]]:
    """Return the vectors of a file by its stem."""
    content = json.loads((DATA / f"{name}.json").read_text())
    return list(content["vectors"])


@pytest.fixture(scope="session")
def matcher(tokenizer_json: str, tokenizer: Gemma4Tokenizer) -> GrammarMatcher:
    """Return the engine's matcher for the real vocabulary."""
    return GrammarMatcher(tokenizer_json, tokenizer)
