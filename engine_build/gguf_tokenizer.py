"""Rebuilds ``tokenizer.json`` from the vocabulary inside a GGUF file of a Gemma 4.

A user who has only the GGUF can then serve it: everything that turns text into ids reads ``tokenizer.json``. The
rebuilt tokenizer gives the same ids as the one that the file was made from. The other direction is ``gguf_vocabulary``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gguf import TokenType

from engine_build.errors import GGUFFileError
from engine_build.gguf_fields import Value, read_fields
from engine_build.gguf_vocabulary import STORED_SPACE, VISIBLE_TOKENS
from engine_build.json_file import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORD_START = "\u2581"
"""What Gemma's vocabulary writes in place of a space."""
ADDED_TYPES = frozenset({TokenType.CONTROL, TokenType.USER_DEFINED})


def write_tokenizer_json(gguf_path: Path, out_path: Path) -> None:
    """Write the tokenizer of ``gguf_path`` to ``out_path``, which appears whole or not at all.

    Raises:
        GGUFFileError: the file is damaged, or its vocabulary is missing or is not that of a Gemma 4.
    """
    tokenizer = tokenizer_from_fields(gguf_path, read_fields(gguf_path))
    with replacing(out_path) as temporary:
        temporary.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def tokenizer_from_fields(path: Path, fields: dict[str, Value]) -> dict[str, Any]:
    """Return the content of ``tokenizer.json`` for the fields of a GGUF file; ``path`` is for messages only.

    Raises:
        GGUFFileError: the vocabulary is missing, damaged, or is not that of a Gemma 4.
    """
    model = fields.get("tokenizer.ggml.model")
    if model != "gemma4":
        msg = f"{path}: tokenizer.ggml.model is {model!r}, a Gemma 4 has 'gemma4'"
        raise GGUFFileError(msg)
    tokens = _strings(path, fields, "tokenizer.ggml.tokens")
    types = fields.get("tokenizer.ggml.token_type")
    if not isinstance(types, list) or len(types) != len(tokens):
        msg = f"{path}: tokenizer.ggml.token_type does not have one entry per token"
        raise GGUFFileError(msg)
    vocab = {token: index for index, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        msg = f"{path}: tokenizer.ggml.tokens has a token twice"
        raise GGUFFileError(msg)
    unknown = fields.get("tokenizer.ggml.unknown_token_id")
    if not isinstance(unknown, int) or not 0 <= unknown < len(tokens):
        msg = f"{path}: tokenizer.ggml.unknown_token_id is missing or out of range"
        raise GGUFFileError(msg)
    merges = [_split_merge(path, merge, vocab) for merge in _strings(path, fields, "tokenizer.ggml.merges")]
    added = [_added_token(index, tokens[index], kind) for index, kind in enumerate(types) if kind in ADDED_TYPES]
    return _tokenizer_json(vocab, merges, added, tokens[unknown])


def _strings(path: Path, fields: dict[str, Value], key: str) -> list[str]:
    """Return a field that must be a list of strings."""
    value = fields.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        msg = f"{path}: {key} is missing or is not a list of strings"
        raise GGUFFileError(msg)
    return [str(item) for item in value]


def _split_merge(path: Path, merge: str, vocab: dict[str, int]) -> list[str]:
    """Return the two halves of a stored merge.

    A half may hold a space that was stored as another character; it is turned back only when the pair as stored does
    not make a token, because that character also exists for itself.
    """
    # A half is never empty, so the separator cannot be the first character.
    cut = merge.find(" ", 1)
    if cut < 0:
        msg = f"{path}: tokenizer.ggml.merges: an entry is not a pair"
        raise GGUFFileError(msg)
    left, right = merge[:cut], merge[cut + 1 :]
    if left + right not in vocab and STORED_SPACE in merge:
        left, right = left.replace(STORED_SPACE, " "), right.replace(STORED_SPACE, " ")
    if left + right not in vocab:
        msg = f"{path}: tokenizer.ggml.merges: {left + right!r} is not a token"
        raise GGUFFileError(msg)
    return [left, right]


def _added_token(index: int, token: str, kind: Value) -> dict[str, Any]:
    """Return one ``added_tokens`` entry; such tokens are found in text before anything else."""
    return {
        "id": index,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": kind == TokenType.CONTROL or token in VISIBLE_TOKENS,
    }


def _tokenizer_json(
    vocab: dict[str, int], merges: Sequence[list[str]], added: Sequence[dict[str, Any]], unknown: str
) -> dict[str, Any]:
    """Return the tokenizer in the ``tokenizers`` package's format, built as Gemma 4's is."""
    space_to_mark = {"type": "Replace", "pattern": {"String": " "}, "content": WORD_START}
    mark_to_space = {"type": "Replace", "pattern": {"String": WORD_START}, "content": " "}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added),
        "normalizer": space_to_mark,
        "pre_tokenizer": split,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [mark_to_space, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": list(merges),
        },
    }
