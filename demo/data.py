"""Conversations as padded batches of token ids: encoding, packing several into a row, and attention masks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo.conversations import BUILDERS, Conversation
from demo.markup import write
from demo.pictures import Picture

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Sample:
    """One encoded conversation. ``blocks`` numbers the picture that a position belongs to, from 1; 0 is text."""

    ids: Ids
    learnt: npt.NDArray[np.bool_]
    blocks: npt.NDArray[np.int8]
    pictures: tuple[Tensor, ...] = ()


class Encoder:
    """Turns conversations into ids with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._image_ids = [_token_id(tokenizer, name) for name in ("<|image>", "<|image|>", "<image|>")]
        self._text_ids = lru_cache(maxsize=50_000)(self._encode)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode(self, conversation: Conversation, features: Mapping[int, Tensor] | None = None) -> Sample:
        """Encode; ``features`` holds each picture's tower output [soft tokens, hidden] by its index."""
        ids: list[int] = []
        learnt: list[bool] = []
        blocks: list[int] = []
        pictures: list[Tensor] = []
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
            else:
                new = [_token_id(self._tokenizer, piece.special)] if piece.special else self._text_ids(piece.text)
                blocks += [0] * len(new)
            ids += new
            learnt += [piece.learnt] * len(new)
        return Sample(np.array(ids, np.int32), np.array(learnt), np.array(blocks, np.int8), tuple(pictures))


@dataclass
class Batch:
    """Rows of packed samples; ``targets`` lists flat positions whose next id is learnt, and ``wanted`` that id."""

    ids: Tensor
    positions: Tensor
    sliding_mask: Tensor
    global_mask: Tensor
    targets: Tensor
    wanted: Tensor
    soft_places: Tensor
    soft_features: Tensor | None

    def to(self, device: torch.device) -> Batch:
        """Move to a device."""
        if device.type == "cpu":
            return self
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(self).items()}
        return Batch(**moved)


def pack(rows: list[list[Sample]], length: int) -> Batch:
    """Lay the samples of each row one after the other; no position sees another sample."""
    count = len(rows)
    ids = np.zeros((count, length), np.int32)
    positions = np.zeros((count, length), np.int64)
    segments = np.zeros((count, length), np.int16)
    blocks = np.zeros((count, length), np.int16)
    learnt = np.zeros((count, length), bool)
    features: list[Tensor] = []
    for row, samples in enumerate(rows):
        start = 0
        for number, sample in enumerate(samples, 1):
            stop = start + len(sample.ids)
            ids[row, start:stop] = sample.ids
            positions[row, start:stop] = np.arange(stop - start)
            segments[row, start:stop] = number
            blocks[row, start:stop] = np.where(sample.blocks > 0, sample.blocks + 8 * number, 0)
            learnt[row, start:stop] = sample.learnt
            features += sample.pictures
            start = stop
    sliding, causal = _masks(segments, blocks)
    targets = np.flatnonzero(learnt[:, 1:].reshape(-1))
    targets = targets // (length - 1) * length + targets % (length - 1)
    ids_flat = torch.from_numpy(ids.astype(np.int64))
    return Batch(
        ids_flat,
        torch.from_numpy(positions),
        sliding,
        causal,
        torch.from_numpy(targets),
        ids_flat.view(-1)[torch.from_numpy(targets) + 1],
        torch.from_numpy(np.flatnonzero(blocks.reshape(-1))),
        torch.cat(features) if features else None,
    )


def _masks(segments: npt.NDArray[np.int16], blocks: npt.NDArray[np.int16]) -> tuple[Tensor, Tensor]:
    segment, block = torch.from_numpy(segments), torch.from_numpy(blocks)
    length = segment.shape[1]
    same = segment[:, :, None] == segment[:, None, :]
    causal = same & torch.ones(length, length, dtype=torch.bool).tril()
    hidden = torch.finfo(torch.float32).min
    global_mask = torch.zeros(same.shape).masked_fill_(~causal, hidden)[:, None]
    if not blocks.any():
        return global_mask, global_mask
    picture = (block[:, :, None] == block[:, None, :]) & (block[:, :, None] > 0)
    sliding_mask = torch.zeros(same.shape).masked_fill_(~(causal | picture), hidden)[:, None]
    return sliding_mask, global_mask


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

    def draw(self, conversation: Conversation, longest: int) -> dict[int, Tensor]:
        """Choose features for every picture of a conversation, of at most ``longest`` soft tokens each."""
        chosen = {}
        for index, picture in enumerate(conversation.pictures):
            entries = self._features[picture.color, picture.shape]
            offset = picture.seed % len(entries)
            chosen[index] = next(entry for entry in entries[offset:] + entries[:offset] if len(entry) <= longest)
        return chosen


@dataclass(frozen=True)
class Stream:
    """An endless, seeded stream of batches of one shape with given shares of the skills."""

    encoder: Encoder
    shares: Mapping[str, float]
    rows: int
    length: int
    seed: int
    pool: PicturePool | None = None
    longest_pictures: tuple[int, ...] = (280,)
    """Soft tokens that the pictures of one conversation may have at most; one is drawn for each conversation."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches for ever; a sample goes to the first row that has room."""
        rng = random.Random(self.seed)
        names, weights = list(self.shares), list(self.shares.values())
        rows: list[list[Sample]] = [[] for _ in range(self.rows)]
        room = [self.length] * self.rows
        misses = 0
        while True:
            conversation = BUILDERS[rng.choices(names, weights)[0]](rng)
            sample = self._sample(conversation, rng.choice(self.longest_pictures) if conversation.pictures else 0)
            if sample is None:
                continue
            size = len(sample.ids)
            best = next((row for row in range(self.rows) if room[row] >= size), None)
            if best is None:
                misses += 1
                if misses < 3:
                    continue
                yield pack(rows, self.length)
                rows, room, misses = [[] for _ in range(self.rows)], [self.length] * self.rows, 0
                best = 0
            rows[best].append(sample)
            room[best] -= size

    def _sample(self, conversation: Conversation | None, longest: int) -> Sample | None:
        """Encode a conversation, without its last turns where it is too long for a row."""
        while conversation is not None:
            features = self.pool.draw(conversation, longest) if self.pool and conversation.pictures else None
            sample = self.encoder.encode(conversation, features)
            if len(sample.ids) <= self.length:
                return sample
            conversation = conversation.without_last_turn()
        return None


def _token_id(tokenizer: Tokenizer, name: str) -> int:
    token_id = tokenizer.token_to_id(name)
    if token_id is None:
        msg = f"the tokenizer has no token {name}"
        raise ValueError(msg)
    return token_id
