"""Good and hostile files, in this process and through the real HTTP route, each with what must become of it."""

from __future__ import annotations

import re
from functools import cache

import pytest
import requests

from api.media.decode import decode_image
from api.media.errors import DecodeError
from api.media.size import Budget
from tests.api.conftest import ScriptedServer
from tests.fakes.corpus import Case, good, hostile
from tests.fakes.pictures import by_url, data_url, is_close, pixel, plain

SMALL = Budget(70)
TOLERANCE = 14
"""Compression, and palettes of 256 colours."""
FEWEST = 100


@cache
def cases() -> dict[str, Case]:
    """Return all files by name."""
    found = [*good(), *hostile()]
    assert len({case.name for case in found}) == len(found)
    return {case.name: case for case in found}


def test_corpus_is_large() -> None:
    """There are at least a hundred files, two thirds of them hostile, of every format."""
    hostile_names = [case.name for case in cases().values() if case.refusal]

    assert len(cases()) >= FEWEST
    assert len(hostile_names) * 3 >= len(cases()) * 1.8
    for kind in ("jpeg", "png", "gif", "webp", "bmp"):
        assert any(name.startswith(kind) for name in hostile_names)


def test_good_files_are_seen() -> None:
    """Every picture that people send shows its colour in the middle."""
    for case in cases().values():
        if case.refusal is None:
            image = decode_image(case.data, SMALL)
            assert is_close(pixel(image, 0.5, 0.5), case.colour, TOLERANCE), case.name


def test_hostile_files_are_refused_with_the_reason() -> None:
    """Every other file is refused, and told why."""
    for case in cases().values():
        if case.refusal is not None:
            with pytest.raises(DecodeError) as caught:
                decode_image(case.data, SMALL)
            assert re.search(case.refusal, caught.value.message), (case.name, caught.value.message)


def test_route_sees_and_refuses_the_same(api: ScriptedServer) -> None:
    """Through HTTP the same files are a 200, or a 400 that names message, part and reason; nothing restarts."""
    before = decoder_pids(api)
    with requests.Session() as session:
        for case in cases().values():
            if not case.data:
                continue
            fine = by_url(data_url(plain()), detail="low")
            tried = by_url(data_url(case.data), detail="low")
            message = {"role": "user", "content": [{"type": "text", "text": "See"}, fine, tried]}
            answer = session.post(f"{api.base_url}/v1/chat/completions", json={"messages": [message]}, timeout=60)
            if case.refusal is None:
                assert answer.status_code == 200, (case.name, answer.text)
                assert is_close(pixel(api.core.requests[-1].images[-1], 0.5, 0.5), case.colour, TOLERANCE), case.name
                continue
            assert answer.status_code == 400, (case.name, answer.text)
            error = answer.json()["error"]
            assert (error["code"], error["param"]) == ("invalid_image", "messages.0.content.2"), case.name
            assert re.search(case.refusal, error["message"]), (case.name, error["message"])
    assert before <= decoder_pids(api)


def decoder_pids(api: ScriptedServer) -> set[int]:
    """Return the ids of the API process's decoders."""
    return set(api.process.children("api.media.decoder_process"))
