"""Conversations as batches of token ids: encoding them and choosing those that fill a batch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo.conversation import Conversation
from demo.conversations import BUILDERS
from demo.looks import Looks
from demo.markup import write
from demo.packing import Sample
from demo.pictures import Picture

LIKE_REQUESTS: Final = (140, 280)
"""Soft tokens of pictures at the default budget, which they fill as far as their form allows."""


class Encoder:
    """Turns conversations into ids with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._image_ids = [_token_id(tokenizer, name) for name in ("<|image>", "<|image|>", "<image|>")]
        self._encode = lru_cache(maxsize=50_000)(partial(tokenizer.encode, add_special_tokens=False))

    def encode(self, conversation: Conversation, features: Mapping[int, Tensor] | None = None) -> Sample:
        """Encode; ``features`` holds each picture's tower output [soft tokens, hidden] by its index."""
        ids: list[int] = []
        learnt: list[bool] = []
        blocks: list[int] = []
        pictures: list[Tensor] = []
        looks = Looks(conversation)
        for piece in write(conversation):
            block = 0
            if piece.picture >= 0:
                if features is None:
                    msg = "a conversation with pictures needs their features"
                    raise ValueError(msg)
                pictures.append(features[piece.picture])
                block = len(pictures)
                begin, soft, end = self._image_ids
                new = [begin, *[soft] * len(pictures[-1]), end]
                blocks += [0, *[block] * len(pictures[-1]), 0]
                looks.see_picture(piece.picture, len(ids) + 1, len(pictures[-1]))
            elif piece.special:
                new = [_token_id(self._tokenizer, piece.special)]
                blocks.append(0)
            else:
                encoded = self._encode(piece.text)
                new = encoded.ids
                blocks += [0] * len(new)
                looks.see_text(piece, encoded, len(ids))
            ids += new
            learnt += [piece.learnt] * len(new)
        return Sample(np.array(ids, np.int32), np.array(learnt), np.array(blocks, np.int8), tuple(pictures), tuple(looks.found))


class PicturePool:
    """Tower outputs of a fixed set of pictures, by what they show."""

    def __init__(self) -> None:
        self._features: dict[tuple[str, str], list[Tensor]] = {}

    def add(self, picture: Picture, features: Tensor) -> None:
        """Keep the features [soft tokens, hidden] of a picture."""
        self._features.setdefault((picture.color, picture.shape), []).append(features)

    def save(self, path: Path) -> None:
        """Write all features to a file."""
        torch.save(self._features, path)

    @classmethod
    def load(cls, path: Path) -> PicturePool:
        """Read what ``save`` wrote."""
        pool = cls()
        pool._features = torch.load(path, weights_only=True)
        return pool

    def draw(self, conversation: Conversation, size: tuple[int, int], known: int | None = None) -> dict[int, Tensor]:
        """Choose features for every picture of a conversation, of so few to so many soft tokens each.

        Args:
            conversation: Says what its pictures show.
            size: How few and how many soft tokens.
            known: The first so many pictures of each kind are drawn from; None is all.
        """
        least, most = size
        chosen = {}
        for index, picture in enumerate(conversation.pictures):
            entries = self._features[picture.color, picture.shape][:known]
            offset = picture.seed % len(entries)
            chosen[index] = next(entry for entry in entries[offset:] + entries[:offset] if least <= len(entry) <= most)
        return chosen


@dataclass(frozen=True)
class Stream:
    """An endless, seeded stream of samples for batches, with given shares of the skills."""

    encoder: Encoder
    shares: Mapping[str, float]
    places: int
    """Positions that the samples of one batch may have in all."""
    longest: int
    """Positions that one sample may have."""
    seed: int
    pool: PicturePool | None = None
    picture_sizes: tuple[tuple[int, int], ...] = (LIKE_REQUESTS,)
    """How few and how many soft tokens a picture may have; one pair is drawn for each conversation."""
    known: int | None = None
    """How many of the pool's pictures of each kind may appear; None is all."""

    def __iter__(self) -> Iterator[list[Sample]]:
        """Yield what fills a batch, for ever; it is full when three samples had no room."""
        rng = random.Random(self.seed)
        names, weights = list(self.shares), list(self.shares.values())
        chosen: list[Sample] = []
        room, misses = self.places, 0
        while True:
            conversation = BUILDERS[rng.choices(names, weights)[0]](rng)
            sample = self._sample(conversation, rng.choice(self.picture_sizes) if conversation.pictures else LIKE_REQUESTS)
            if sample is None:
                continue
            if len(sample.ids) > room:
                misses += 1
                if misses < 3:
                    continue
                yield chosen
                chosen, room, misses = [], self.places, 0
            chosen.append(sample)
            room -= len(sample.ids)

    def _sample(self, conversation: Conversation | None, size: tuple[int, int]) -> Sample | None:
        """Encode a conversation, without its last turns where it is too long."""
        while conversation is not None:
            features = self.pool.draw(conversation, size, self.known) if self.pool and conversation.pictures else None
            sample = self.encoder.encode(conversation, features)
            if len(sample.ids) <= self.longest:
                return sample
            conversation = conversation.without_last_turn()
        return None


def _token_id(tokenizer: Tokenizer, name: str) -> int:
    token_id = tokenizer.token_to_id(name)
    if token_id is None:
        msg = f"the tokenizer has no token {name}"
        raise ValueError(msg)
    return token_id
