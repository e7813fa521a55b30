"""The folder from which vLLM loads the model's tokenizer: ``tokenizer.json`` and a configuration made from its names.

Ids go in and come out, so vLLM has no text to read; it needs the vocabulary for grammars, the ids of some tokens by
role, and a processor for the pictures with which it measures memory. A checkpoint's own ``tokenizer_config.json`` may
be missing, or name another end token than grammars are compiled with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from engine.errors import EngineLoadError
from engine.vllm.held_folder import HeldFolder

END: Final = "<eos>"
"""What vLLM draws where a grammar has ended and nothing else may follow."""
ROLES: Final = {"bos_token": "<bos>", "eos_token": END, "pad_token": "<pad>", "unk_token": "<unk>"}
PICTURE_ROLES: Final = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
"""Names of transformers' ``Gemma4Processor`` for tokens, and the tokens."""


class TokenizerFolder:
    """Lives as long as the engine; its processes read it while they start."""

    def __init__(self, tokenizer_path: Path, config_path: Path) -> None:
        """Write the folder; vLLM looks for the model's ``config.json`` there too.

        Raises:
            EngineLoadError: ``tokenizer.json`` cannot be read or is none of Gemma's.
        """
        self._names = _special_tokens(tokenizer_path)
        self.end_id = self.id_of(END)
        self._folder = HeldFolder("g4nim-tokenizer-")
        self.path = self._folder.path
        (self.path / tokenizer_path.name).symlink_to(tokenizer_path.resolve())
        (self.path / "config.json").symlink_to(config_path.resolve())
        configuration = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **ROLES,
            "extra_special_tokens": {role: name for role, name in PICTURE_ROLES.items() if name in self._names},
        }
        (self.path / "tokenizer_config.json").write_text(json.dumps(configuration), encoding="utf-8")

    def id_of(self, name: str) -> int:
        """Return the id of a special token.

        Raises:
            EngineLoadError: there is none of that name.
        """
        try:
            return self._names[name]
        except KeyError:
            message = f"the tokenizer has no token {name}"
            raise EngineLoadError(message) from None

    def close(self) -> None:
        """Delete the folder."""
        self._folder.close()


def _special_tokens(path: Path) -> dict[str, int]:
    if path.name != "tokenizer.json":
        message = f"the tokenizer file {path} must be named tokenizer.json"
        raise EngineLoadError(message)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {token["content"]: token["id"] for token in content["added_tokens"]}
    except OSError as error:
        message = f"the tokenizer file {path} cannot be read: {error.strerror}"
        raise EngineLoadError(message) from error
    except (ValueError, KeyError, TypeError) as error:
        message = f"the tokenizer file {path} is not a tokenizer of Gemma 4: {error}"
        raise EngineLoadError(message) from error
