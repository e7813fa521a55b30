"""The training data is reproducible and keeps what the evaluation asks out of what training saw."""

from __future__ import annotations

import random
import re

import pytest

from demo import lexicon
from demo.conversation import Conversation
from demo.conversations import BUILDERS
from demo.evaluation_cases import SKILLS, make_cases
from demo.markup import write
from demo.pictures import Picture, draw, fit
from demo.questions import ask_sum


def _words(conversation: Conversation) -> set[str]:
    """Return every capitalised word and code of a conversation, pieces joined as a reader sees them."""
    text = " ".join(piece.text for piece in write(conversation))
    return set(re.findall(r"[A-Z][a-z]{3,}|[A-Z]{1,3}-?[0-9]{2,4}", text))


@pytest.mark.parametrize("skill", BUILDERS)
def test_the_same_seed_gives_the_same_conversation(skill: str) -> None:
    """A conversation depends on nothing but its random generator."""
    first = [write(BUILDERS[skill](random.Random(seed))) for seed in range(20)]
    second = [write(BUILDERS[skill](random.Random(seed))) for seed in range(20)]

    assert first == second


def test_made_up_words_are_either_trained_or_held_out() -> None:
    """No made-up word or code of the training part is asked by the evaluation."""
    rng = random.Random(3)
    makers = (lexicon.make_word, lexicon.make_code)
    trained = {make(rng, held_out=False) for _ in range(3000) for make in makers}
    held_out = {make(rng, held_out=True) for _ in range(3000) for make in makers}

    assert len(held_out) > 4000
    assert trained.isdisjoint(held_out)


def test_training_never_shows_a_held_out_code() -> None:
    """Codes that belong to the evaluation do not appear in training conversations of any skill."""
    rng = random.Random(4)
    codes = {
        word
        for _ in range(400)
        for build in BUILDERS.values()
        for word in _words(build(rng))
        if re.fullmatch(r"[A-Z]{1,3}-?[0-9]{2,4}", word)
    }
    held_out = {code for code in codes if lexicon.is_held_out(code)}

    assert len(codes) > 300
    # A result may hold a code as made by another maker (a hex colour, a time); none may come from make_code.
    assert len(held_out) / len(codes) < 0.02


def test_sums_are_right_and_split() -> None:
    """Every sum is answered correctly, and trained and asked pairs of numbers do not overlap."""
    pairs: dict[bool, set[str]] = {True: set(), False: set()}
    rng = random.Random(5)
    for held_out in (True, False):
        for _ in range(2000):
            answer = ask_sum(rng, held_out=held_out)
            match = re.fullmatch(r"(\d+) \+ (\d+) = (\d+)\.", answer.full)
            assert match
            a, b, total = map(int, match.groups())

            assert total == a + b
            pairs[held_out].add(f"{a}+{b}")

    assert pairs[True].isdisjoint(pairs[False])


def test_every_skill_has_cases_with_judges_that_can_fail() -> None:
    """The evaluation asks every skill, and no judge accepts an empty answer."""
    cases = make_cases(seed=1, count=3)
    empty = {"message": {"content": "", "reasoning": None, "tool_calls": None}, "finish_reason": "stop"}

    assert {case.skill for case in cases} == {*SKILLS, "plain"} - {"two_pictures"} | {"two pictures"}
    assert not any(case.judge(empty) for case in cases)


@pytest.mark.parametrize(
    ("size", "fitted"), [((640, 480), (912, 672)), ((256, 256), (768, 768)), ((1000, 100), (2496, 240))]
)
def test_pictures_are_fitted_as_the_server_fits_them(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    """Training resizes to the sizes of the default budget: 266, 256 and 260 soft tokens."""
    image = fit(draw(Picture("red", "circle", 1), size), 280)

    assert image.size == fitted


def test_every_name_of_a_list_is_asked_for_by_its_thing() -> None:
    """A question names one thing, and the answer is the listed name that ends with it."""
    for seed in range(100):
        messages = BUILDERS["list"](random.Random(seed)).messages
        listed = set(re.findall(r"[a-z]+[ _][a-z]+(?=[,.])", messages[0]["content"].split(". ")[0] + "."))
        exchanges = [message["content"] for message in messages if message["role"] != "system"]
        asked = list(zip(exchanges[::2], exchanges[1::2], strict=True))

        assert len({answer for _, answer in asked}) >= 3
        for question, answer in asked:
            assert any(name.endswith(answer) for name in listed), (listed, answer)
            assert re.split("[ _]", answer)[1] in question


def test_every_made_up_tool_is_asked_for_by_its_thing() -> None:
    """A question names what the tool that is its answer is about, and no other tool is about it."""
    for seed in range(100):
        conversation = BUILDERS["tool_names"](random.Random(seed))
        nouns = {tool.name: tool.family.nouns for tool in conversation.tools}
        asked = zip(conversation.messages[::2], conversation.messages[1::2], strict=True)

        for question, answer in asked:
            thing = nouns[answer["content"]][0]
            assert thing in question["content"]
            assert sum(thing in own for own in nouns.values()) == 1


def test_begun_answers_are_cut_inside_words() -> None:
    """Of a conversation of begun answers, each is given up to somewhere inside a word, and only the rest is learnt."""
    rng = random.Random(8)
    begun = 0
    for _ in range(50):
        conversation = BUILDERS["cuts"](rng)
        answers = {i: m["content"] for i, m in enumerate(conversation.messages) if m["role"] == "assistant"}
        learnt = [piece.text for piece in write(conversation) if piece.learnt and piece.text]

        assert conversation.cuts.keys() == answers.keys()
        assert learnt == [text[conversation.cuts[index] :] for index, text in answers.items()]
        for index, text in answers.items():
            cut = conversation.cuts[index]
            assert cut == 0 or text[cut - 1 : cut + 1].isalnum()
            begun += cut > 0
    assert begun > 100
