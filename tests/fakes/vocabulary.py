"""A very small vocabulary with Gemma 4's special tokens under their real names, for tests that need no model."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Replace

SPECIAL_NAMES = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    '<|"|>',
    "<|think|>",
    "<|channel>",
    "<channel|>",
    "<|turn>",
    "<turn|>",
    "<|image>",
    "<|audio>",
    "<|image|>",
    "<|audio|>",
    "<image|>",
    "<audio|>",
    "<|video|>",
)
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def build_tokenizer_json() -> str:
    """Return ``tokenizer.json``: special tokens, bytes, and one token per printable ASCII character."""
    characters = [chr(code) for code in range(33, 127)] + ["\n", _SPACE]
    names = [*SPECIAL_NAMES, *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = Replace(" ", _SPACE)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_NAMES])
    return str(tokenizer.to_str())
