"""Gemma 4's vocabulary: special tokens by name, text that can never become one, and the bytes behind every id.

The caller reads ``tokenizer.json``; this module never touches a file. Ids are looked up by name, because vocabularies
differ between checkpoints. Detokenising of streams is ``api.gemma4.detokenizer``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import AddedToken, Tokenizer

from api.gemma4.errors import VocabularyError
from api.gemma4.token_cache import TokenCache
from api.gemma4.words import SPACE, Words

_NAMES = {
    "bos": "<bos>",
    "eos": "<eos>",
    "turn_open": "<|turn>",
    "turn_close": "<turn|>",
    "channel_open": "<|channel>",
    "channel_close": "<channel|>",
    "think": "<|think|>",
    "tool_open": "<|tool>",
    "tool_close": "<tool|>",
    "call_open": "<|tool_call>",
    "call_close": "<tool_call|>",
    "response_open": "<|tool_response>",
    "response_close": "<tool_response|>",
    "quote": '<|"|>',
    "image_open": "<|image>",
    "image": "<|image|>",
    "image_close": "<image|>",
    "audio": "<|audio|>",
    "video": "<|video|>",
}
_OPTIONAL = frozenset({"audio", "video"})
"""Media tokens that a checkpoint without such media may lack."""

_CACHE_CHARACTERS = 4_000_000
_LONG = 20_000
"""Characters from which on a text is tokenised as a batch of one: five times as fast, but with threads to start."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of the tokens that structure a conversation; -1 for optional media tokens that the vocabulary lacks."""

    bos: int
    eos: int
    turn_open: int
    turn_close: int
    channel_open: int
    channel_close: int
    think: int
    tool_open: int
    tool_close: int
    call_open: int
    call_close: int
    response_open: int
    response_close: int
    quote: int
    image_open: int
    image: int
    image_close: int
    audio: int
    video: int

    @property
    def stop_ids(self) -> tuple[int, int, int]:
        """Ids that end the model's turn: end of text, end of turn, and the place of a tool's result."""
        return (self.eos, self.turn_close, self.response_open)


class Gemma4Tokenizer:
    """A Gemma 4 vocabulary. Takes ownership of the ``Tokenizer`` that it is given.

    Encodings are cached by text, and ``declarations`` is the same for the renderer's tool declarations, both within a
    bound of characters. Instances may be shared between threads.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Check the vocabulary and make text neutral.

        Raises:
            VocabularyError: when a special token is missing, or text could still spell one.
        """
        self._tokenizer = tokenizer
        ids = {field: _lookup(tokenizer, field, name) for field, name in _NAMES.items()}
        self.special = SpecialTokens(**ids)
        self.size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self._special_names = {ids[field]: name for field, name in _NAMES.items() if ids[field] >= 0}
        for token_id, token in tokenizer.get_added_tokens_decoder().items():
            if token.special:
                self._special_names[token_id] = token.content
        self.special_ids: frozenset[int] = frozenset(self._special_names)
        self._make_text_neutral()
        self._pieces: list[str | bytes | None] = [None] * self.size
        self._cache = TokenCache(_CACHE_CHARACTERS)
        self.declarations = TokenCache(_CACHE_CHARACTERS)
        self._words = Words(tokenizer)

    @classmethod
    def from_json(cls, text: str) -> Gemma4Tokenizer:
        """Build from the text of ``tokenizer.json``.

        Raises:
            VocabularyError: when the text is not a tokenizer, or not Gemma 4's.
        """
        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the tokenizers package raises bare Exception for every fault
            raise VocabularyError(f"tokenizer.json cannot be read: {error}") from error
        return cls(tokenizer)

    def _make_text_neutral(self) -> None:
        """Switch off the matching of special tokens in text, and prove it for every one of them.

        ``encode_special_tokens`` covers tokens that are marked special; a file that holds a marker as an ordinary added
        token gets it marked first.
        """
        names = self._special_names.values()
        self._tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
        self._tokenizer.encode_special_tokens = True
        for name in names:
            if not self.special_ids.isdisjoint(self._tokenizer.encode(name, add_special_tokens=False).ids):
                msg = f"the text {name!r} cannot be told from the special token"
                raise VocabularyError(msg)

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokenise plain text. No special token can come out of it, whatever it spells."""
        ids = self._cache.get(text)
        return self.encode_all((text,))[0] if ids is None else ids

    def encode_all(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Tokenise plain texts, each by itself; new words of all of them are tokenised in one go."""
        get = self._cache.get
        known = {text: get(text) for text in texts}
        new = [text for text, ids in known.items() if ids is None]
        if new:
            for text, found in zip(new, self._words.encode(new), strict=True):
                ids = known[text] = self._encode(text) if found is None else found
                self._cache.remember(text, ids)
        return [known[text] or () for text in texts]

    def least_tokens(self, characters: int) -> int:
        """Return how many tokens a text of so many characters has at least."""
        return -(-characters // self._longest_piece) if self._longest_piece else 0

    @cached_property
    def _longest_piece(self) -> int:
        """Most characters that one token may stand for; 0 where that cannot be told."""
        if not getattr(self._tokenizer.model, "byte_fallback", False):
            # One token for unknown characters might stand for any number of them.
            return 0
        return max(map(len, self._tokenizer.get_vocab(with_added_tokens=True)))

    def forget(self) -> None:
        """Drop everything that was remembered of earlier texts."""
        self._cache = TokenCache(_CACHE_CHARACTERS)
        self.declarations = TokenCache(_CACHE_CHARACTERS)
        self._words.forget()

    def _encode(self, text: str) -> tuple[int, ...]:
        """Tokenise; half of a surrogate pair, which JSON can spell but UTF-8 cannot hold, becomes U+FFFD."""
        try:
            return self._ids(text)
        except TypeError:
            return self._ids(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    def _ids(self, text: str) -> tuple[int, ...]:
        if len(text) < _LONG:
            return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return tuple(self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def encode_marked(self, text: str) -> tuple[int, ...]:
        """Tokenise text in which spelled markers stand for their tokens: for diagnostics, never for user text."""
        ids: list[int] = []
        by_name = sorted(((name, token_id) for token_id, name in self._special_names.items()), key=lambda x: -len(x[0]))
        start = position = 0
        while (position := text.find("<", position)) >= 0:
            found = next(((name, token_id) for name, token_id in by_name if text.startswith(name, position)), None)
            if found is None:
                position += 1
                continue
            ids += self.encode(text[start:position])
            ids.append(found[1])
            start = position = position + len(found[0])
        ids += self.encode(text[start:])
        return tuple(ids)

    def piece(self, token_id: int) -> str | bytes:
        """Return the text behind an id, or one raw byte for a byte token. Ids outside the vocabulary are empty text."""
        if not 0 <= token_id < self.size:
            return ""
        piece = self._pieces[token_id]
        if piece is None:
            piece = self._pieces[token_id] = self._load_piece(token_id)
        return piece

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that an id stands for; a special token's are its name."""
        piece = self.piece(token_id)
        return piece if isinstance(piece, bytes) else piece.encode()

    def decode_marked(self, ids: Iterable[int]) -> str:
        """Spell ids as text, special tokens by their names; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.token_bytes(token_id) for token_id in ids).decode(errors="replace")

    def name(self, token_id: int) -> str | None:
        """Return the name of a special token, None for an ordinary id."""
        return self._special_names.get(token_id)

    def _load_piece(self, token_id: int) -> str | bytes:
        name = self._special_names.get(token_id)
        if name is not None:
            return name
        piece = self._tokenizer.id_to_token(token_id)
        if piece is None:
            return ""
        if len(piece) == len("<0x00>") and piece.startswith("<0x") and piece.endswith(">"):
            return bytes.fromhex(piece[3:5])
        return piece.replace(SPACE, " ")


def _lookup(tokenizer: Tokenizer, field: str, name: str) -> int:
    token_id = tokenizer.token_to_id(name)
    if token_id is not None:
        return int(token_id)
    if field in _OPTIONAL:
        return -1
    msg = f"the vocabulary has no token {name}: not a Gemma 4 tokenizer"
    raise VocabularyError(msg)
