"""Keeps secrets out of what is written: keys by their value and by their form, passwords in addresses.

The launcher knows the values that it was given; the forms catch what came from elsewhere, such as an address in the
message of a library.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

HIDDEN: Final = "***"
SHORTEST: Final = 6
"""A shorter value would be found in ordinary words."""
_FORMS: Final = (
    # Keys of Hugging Face, NGC, Amazon.
    re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|nvapi-[A-Za-z0-9_-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16})"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}"),
    # user:password@ in an address.
    re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]*(?=@)"),
    # What signed addresses carry in their query.
    re.compile(
        r"(?i)(?<=[?&;])((?:x-amz-(?:signature|credential|security-token)|signature|token|key-pair-id|policy)=)[^&\s'\"]+"
    ),
)


class Redactor:
    """Replaces secrets in text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: one may be the beginning of another.
        values = sorted({value for value in secrets if len(value) >= SHORTEST}, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, values))) if values else None

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        if self._values is not None:
            text = self._values.sub(HIDDEN, text)
        for form in _FORMS:
            text = form.sub(lambda found: (found[1] if found.re.groups else "") + HIDDEN, text)
        return text
