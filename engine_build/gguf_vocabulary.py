"""What a GGUF file says about a vocabulary, made from ``tokenizer.json``: tokens, types, merges, named ids.

The form is llama.cpp's for ``tokenizer.ggml.model = gemma4``. The way back is ``gguf_tokenizer``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gguf import GGUFWriter, TokenType

from engine_build.errors import TokenizerFileError
from engine_build.json_file import read_json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# Special tokens that llama.cpp writes out as text; its own parser needs them, and the real vocabulary file has them so.
VISIBLE_TOKENS = frozenset(
    {"<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>'}
)
# llama.cpp writes this score for every token of a vocabulary that ranks by merges.
UNSCORED = -1000.0
# A merge is stored as its two halves with a space between, so a space inside a half is stored as this character.
STORED_SPACE = chr(ord(" ") + 256)
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A vocabulary by id, with its merges in order of rank."""

    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    merges: tuple[str, ...]
    ids: Mapping[str, int]

    def write_to(self, writer: GGUFWriter) -> None:
        """Add everything that belongs to the vocabulary to a GGUF file's metadata."""
        writer.add_tokenizer_model("gemma4")
        writer.add_token_list(list(self.tokens))
        writer.add_token_scores([UNSCORED] * len(self.tokens))
        writer.add_token_types(list(self.types))
        writer.add_token_merges(list(self.merges))
        writer.add_bos_token_id(self.ids["<bos>"])
        writer.add_eos_token_id(self.ids["<eos>"])
        writer.add_unk_token_id(self.ids["<unk>"])
        writer.add_pad_token_id(self.ids["<pad>"])
        if "<mask>" in self.ids:
            writer.add_mask_token_id(self.ids["<mask>"])
        # Generation also ends after a turn and after a tool call.
        writer.add_eot_token_id(self.ids["<turn|>"])
        writer.add_eom_token_id(self.ids["<|tool_response>"])
        writer.add_add_space_prefix(value=False)
        writer.add_add_bos_token(value=True)


REQUIRED_TOKENS = ("<bos>", "<eos>", "<unk>", "<pad>", "<turn|>", "<|tool_response>")


def load_vocabulary(directory: Path) -> Vocabulary:
    """Read ``tokenizer.json``, and the names of special tokens from ``tokenizer_config.json`` where there is one.

    Raises:
        TokenizerFileError: a file is damaged, is not the byte-fallback BPE of Gemma 4, has gaps in its ids, or lacks
            one of ``REQUIRED_TOKENS``.
    """
    path = directory / "tokenizer.json"
    data = read_json_object(path, TokenizerFileError)
    model = data.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not model.get("byte_fallback"):
        msg = f"{path}: model: must be BPE with byte_fallback"
        raise TokenizerFileError(msg)
    base, added = model.get("vocab"), data.get("added_tokens") or []
    if not isinstance(base, dict) or not isinstance(added, list):
        msg = f"{path}: model.vocab must be an object and added_tokens a list"
        raise TokenizerFileError(msg)
    special = _named_special_tokens(directory)
    ids: dict[str, int] = dict(base)
    try:
        ids.update((entry["content"], entry["id"]) for entry in added)
        special |= {entry["content"] for entry in added if entry.get("special")}
    except (KeyError, TypeError, AttributeError) as exc:
        msg = f"{path}: added_tokens: an entry lacks content or id"
        raise TokenizerFileError(msg) from exc
    tokens = _by_id(path, ids)
    missing = [name for name in REQUIRED_TOKENS if name not in ids]
    if missing:
        msg = f"{path}: lacks the token {missing[0]}"
        raise TokenizerFileError(msg)
    types = tuple(_token_type(token, special, base) for token in tokens)
    return Vocabulary(tokens, types, tuple(_merges(path, model.get("merges"))), ids)


def _by_id(path: Path, ids: Mapping[str, Any]) -> tuple[str, ...]:
    """Order tokens by id, which must run from 0 without a gap."""
    by_id = {value: token for token, value in ids.items()}
    if set(by_id) != set(range(len(ids))):
        msg = f"{path}: token ids must run from 0 to {len(ids) - 1} without gaps or repeats"
        raise TokenizerFileError(msg)
    return tuple(by_id[index] for index in range(len(ids)))


def _token_type(token: str, special: set[str], base: Mapping[str, int]) -> TokenType:
    """Return the GGUF type of one token."""
    if token in VISIBLE_TOKENS:
        return TokenType.USER_DEFINED
    if BYTE_TOKEN.fullmatch(token):
        return TokenType.BYTE
    if token in special:
        return TokenType.CONTROL
    # An added token of the base vocabulary that is not special is a whole word, which the merges reach by themselves.
    return TokenType.NORMAL if token in base else TokenType.USER_DEFINED


def _merges(path: Path, merges: object) -> Iterable[str]:
    """Yield merges as ``"left right"``; tokenizer.json has them in this form or as pairs."""
    if not isinstance(merges, list) or not merges:
        msg = f"{path}: model.merges must be a list with entries"
        raise TokenizerFileError(msg)
    for merge in merges:
        if isinstance(merge, str):
            yield merge
            continue
        try:
            left, right = merge
            yield f"{left.replace(' ', STORED_SPACE)} {right.replace(' ', STORED_SPACE)}"
        except (TypeError, ValueError, AttributeError) as exc:
            msg = f"{path}: model.merges: an entry is neither a string nor a pair of strings"
            raise TokenizerFileError(msg) from exc


def _named_special_tokens(directory: Path) -> set[str]:
    """Return the special tokens that ``tokenizer_config.json`` names; the flags in tokenizer.json may be incomplete."""
    path = directory / "tokenizer_config.json"
    if not path.is_file():
        return set()
    config = read_json_object(path, TokenizerFileError)
    values: list[Any] = [value for key, value in config.items() if key.endswith("_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        extra = config.get(key) or []
        values.extend(extra.values() if isinstance(extra, dict) else extra)
    contents = [value.get("content") if isinstance(value, dict) else value for value in values]
    return {content for content in contents if isinstance(content, str)}
