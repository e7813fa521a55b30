"""Finds files that are a picture to one program and something else to another: an archive, a document, a page.

The pixels of such a file are harmless here, but nobody sends one by accident. Trailing data as cameras write it (a
second picture, a film, maker's notes) is no second format.
"""

from __future__ import annotations

from typing import Final

from api.media.header import Bytes

HEAD_BYTES: Final = 1024
"""Where readers of PDF and browsers that guess look for the beginning of a document."""
_MARKUP: Final = (b"<html", b"<!doctype html", b"<script", b"<svg", b"<?php", b"<body", b"<iframe")
_SCRIPTS: Final = (b"GIF87a/*", b"GIF89a/*", b"\xff\xd8\xff\xe0/*")
"""A width, or a length, that opens a comment in JavaScript. No real file of these formats begins so."""
_ZIP_END: Final = b"PK\x05\x06"
_ZIP_END_BYTES: Final = 22
_ZIP_TAIL_BYTES: Final = _ZIP_END_BYTES + 65_535
"""The longest end of a ZIP archive: its last record and a comment. Readers of ZIP begin there."""


def second_format(data: Bytes) -> str | None:
    """Return the name of the other format that the file also is; None for an ordinary picture."""
    head = data[:HEAD_BYTES]
    if b"%PDF-" in head:
        return "PDF document"
    lowered = head.lower()
    if any(mark in lowered for mark in _MARKUP):
        return "page with markup or scripts"
    if head.startswith(_SCRIPTS):
        return "script"
    return "ZIP archive" if _ends_as_zip(data) else None


def _ends_as_zip(data: Bytes) -> bool:
    tail = data[max(0, len(data) - _ZIP_TAIL_BYTES) :]
    place = tail.rfind(_ZIP_END)
    if place < 0 or len(tail) - place < _ZIP_END_BYTES:
        return False
    # The record's last two bytes are the length of the comment, which must end where the file ends.
    comment = int.from_bytes(tail[place + 20 : place + 22], "little")
    return place + _ZIP_END_BYTES + comment == len(tail)
