"""The demo checkpoints' tokenizer: a small byte-pair vocabulary in exactly the form of Gemma 4's own.

Special tokens carry their real names and flags but other ids, so code that hard-codes an id fails on the demo.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from demo import lexicon
from demo.conversations import BUILDERS
from demo.markup import write

SPECIAL_TOKENS: Final = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>", "<|channel>",
    "<channel|>", "<|turn>", "<turn|>", "<|image>", "<|audio>", "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>",
)  # fmt: skip
VOCABULARY_SIZE: Final = 2048
_WITHOUT_NEW_WORDS: Final = ("cuts", "list", "tool_names")
"""Skills that practise on the words of other skills."""
_LETTERS: Final = "▁\n" + string.digits + string.ascii_letters + string.punctuation + "\tÄÖÜäöüßéèêàâçñóíáúôîûëï¡¿’‘“”–—…€°£×·"
# Pieces never span words, digits stand alone, and punctuation joins only the space before it.
_WORD: Final = Regex(r"\n+|▁?\p{L}+|▁?[^\p{L}\p{N}▁\n]|\p{N}|▁")


def _corpus(seed: int, conversations: int) -> Iterator[str]:
    rng = random.Random(seed)
    builders = [build for skill, build in BUILDERS.items() if skill not in _WITHOUT_NEW_WORDS]
    for _ in range(conversations):
        for piece in write(rng.choice(builders)(rng)):
            if piece.text:
                yield piece.text
        yield " ".join(lexicon.make_word(rng, held_out=False) for _ in range(6))
        yield " ".join(rng.choice(lexicon.FIRST_NAMES + list(lexicon.CITIES)) for _ in range(3))
        yield lexicon.make_phrase(rng, held_out=False)


def train_tokenizer(seed: int = 0, conversations: int = 6000) -> dict[str, Any]:
    """Learn the pieces and return the contents of ``tokenizer.json``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_WORD, "isolated")
    reserved = len(SPECIAL_TOKENS) + 256
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - reserved, min_frequency=8, initial_alphabet=list(_LETTERS), limit_alphabet=len(set(_LETTERS)), show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(seed, conversations), trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    names = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)]
    return _tokenizer_json(names, learnt["merges"])


def _tokenizer_json(names: list[str], merges: list[list[str]]) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": name, **flags} for index, name in enumerate(SPECIAL_TOKENS)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {name: index for index, name in enumerate(names)},
            "merges": merges,
        },
    }


def write_tokenizer(path: Path, seed: int = 0) -> None:
    """Learn the tokenizer and write ``tokenizer.json``."""
    path.write_text(json.dumps(train_tokenizer(seed), ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
