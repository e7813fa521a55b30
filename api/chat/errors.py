"""Errors of the canonical request: what a caller sent cannot be run. The HTTP layer turns each into a 400.

No web import. ``api.gemma4.errors`` builds on the same base for prompts, schemas and grammars.
"""

from __future__ import annotations


class ChatError(Exception):
    """A request that is at fault. ``message`` is safe to show, ``param`` is the dotted path of the field."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class RoleError(ChatError):
    """The order of the messages is not one that the model was trained on."""


class ArgumentsError(ChatError):
    """The arguments of an earlier tool call are not a JSON object."""
