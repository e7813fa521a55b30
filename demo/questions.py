"""Questions in many wordings with their answers: facts, sums, names, extraction, and what is not known."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from demo import lexicon
from demo.lexicon import CAPITALS, COUNTS, IDENTITY, OPPOSITES, PLAIN_FACTS, SMALL_TALK, SOUNDS, THING_COLORS, UNKNOWN


@dataclass(frozen=True)
class Answer:
    """One question with its answer as a sentence and in short, and the thought that leads there."""

    question: str
    full: str
    short: str
    thought: str
    plain: bool = True
    """The short form is a number, a name or a place: it needs no translation."""


def ask_capital(rng: random.Random) -> Answer:
    """Ask for a capital."""
    country, city = rng.choice(list(CAPITALS.items()))
    question = rng.choice((
        "What is the capital of {}?", "What is the capital of {}?", "What's the capital of {}?", "Which city is the capital of {}?", "Name the capital of {}.", "Tell me the capital of {}.",
        "capital of {}", "What is the capital city of {}?", "Do you know the capital of {}?", "Can you tell me the capital of {}?", "The capital of {}?",
        "what is the capital of {}", "What is the capital of {}", "Please name the capital of {}.", "Which is the capital of {}?", "Hi, what is the capital of {}?",
    )).format(country)  # fmt: skip
    return Answer(question, f"The capital of {country} is {city}.", city, f"The user asks for the capital of {country}. It is {city}.")


def ask_fact(rng: random.Random) -> Answer:
    """Ask one of the closed set of other facts."""
    kind = rng.randrange(6)
    if kind == 0:
        word, other = rng.choice(list(OPPOSITES.items()))
        question = rng.choice(("What is the opposite of {}?", "What's the opposite of {}?", "Tell me the opposite of {}.", "The opposite of {}?", "Name the opposite of {}.")).format(word)
        return Answer(question, f"The opposite of {word} is {other}.", other, f"The opposite of {word} is {other}.", plain=False)
    if kind == 1:
        thing, color = rng.choice(list(THING_COLORS.items()))
        question = rng.choice(("What colour is {}?", "What color is {}?", "Which colour has {}?", "What is the color of {}?", "Tell me the colour of {}.")).format(thing)
        return Answer(question, f"{thing.capitalize()} is {color}.", color, f"The color of {thing} is {color}.", plain=False)
    if kind == 2:
        animal, sound = rng.choice(list(SOUNDS.items()))
        question = rng.choice(("What does a {} say?", "What sound does a {} make?", "Which sound does a {} make?")).format(animal)
        return Answer(question, f"A {animal} says {sound}.", sound, f"The sound of a {animal} is {sound}.", plain=False)
    if kind == 3:
        thing, count = rng.choice(list(COUNTS.items()))
        return Answer(f"How many {thing}?", f"The answer is {count}.", str(count), f"The number is {count}.")
    questions, short, full = rng.choice(PLAIN_FACTS)
    return Answer(rng.choice(questions), full.format(a=short), short, f"The user asks something that I know: {short}.", plain=False)


def ask_sum(rng: random.Random, *, held_out: bool) -> Answer:
    """Ask for a sum of two numbers below one hundred."""
    while True:
        a, b = (rng.randrange(rng.choice((10, 20, 100, 100, 100))) for _ in range(2))
        if lexicon.is_held_out(f"{a}+{b}") is held_out:
            break
    question = rng.choice((
        "What is {a} + {b}?", "What is {a} + {b}?", "What's {a} + {b}?", "What is {a} plus {b}?", "How much is {a} + {b}?", "How much is {a} and {b}?", "Add {a} and {b}.",
        "Calculate {a} + {b}.", "{a} + {b}", "{a}+{b}", "{a} + {b} = ?", "What is {a}+{b}?", "Please add {a} and {b}.", "Compute {a} + {b}.", "What is the sum of {a} and {b}?", "{a} plus {b}?",
    )).format(a=a, b=b)  # fmt: skip
    ones = a % 10 + b % 10
    tens = a // 10 + b // 10
    steps = f"Ones: {a % 10} + {b % 10} = {ones}. Tens: {a // 10} + {b // 10} = {tens}. " if a > 9 or b > 9 else ""
    return Answer(question, f"{a} + {b} = {a + b}.", str(a + b), f"{steps}{a} + {b} = {a + b}.")


def ask_name(rng: random.Random, *, held_out: bool) -> Answer:
    """Tell something and ask it back: the answer is copied from the question."""
    name = lexicon.make_person(rng, held_out=held_out)
    kind = rng.randrange(7)
    if kind == 0:
        tell = rng.choice(("My name is {}.", "I am {}.", "I'm {}.", "Hello, my name is {}.", "You can call me {}.")).format(name)
        return Answer(f"{tell} {rng.choice(('What is my name?', 'Who am I?', 'What am I called?'))}", f"Your name is {name}.", name, f"The user said the name: {name}.")
    if kind == 1:
        place = lexicon.make_place(rng, held_out=held_out)
        tell = rng.choice(("{} lives in {}.", "{} comes from {}.", "{} works in {}.")).format(name, place)
        return Answer(f"{tell} Where is {name}?", f"{name} is in {place}.", place, f"The text says that {name} is in {place}.")
    if kind == 2:
        thing = f"{rng.choice(lexicon.ADJECTIVES)} {rng.choice(lexicon.NOUNS)}"
        other = lexicon.make_person(rng, held_out=held_out)
        second = f"{rng.choice(lexicon.ADJECTIVES)} {rng.choice(lexicon.NOUNS)}"
        asked, owned = rng.choice(((name, thing), (other, second)))
        return Answer(f"{name} has a {thing}. {other} has a {second}. What does {asked} have?", f"{asked} has a {owned}.", f"a {owned}", f"{asked} has a {owned}.", plain=False)
    phrase = rng.choice((lexicon.make_phrase, lexicon.make_person, lexicon.make_place, lexicon.make_code))(rng, held_out=held_out)
    question = rng.choice(("Repeat: {}", 'Repeat "{}".', "Say {}", 'Say "{}".', 'Write "{}".', "Repeat after me: {}", 'Please say "{}".', "Echo: {}", "Say this: {}", "Copy this: {}")).format(phrase)
    return Answer(question, phrase, phrase, f"I repeat: {phrase}.", plain=False)


def ask_extract(rng: random.Random, *, held_out: bool) -> tuple[str, dict[str, Any]]:
    """Ask for two or three values of a sentence as JSON."""
    name = lexicon.make_person(rng, held_out=held_out)
    values: dict[str, Any] = {"name": name}
    text = name
    if rng.random() < 0.7:
        values["age"] = rng.randint(1, 99)
        text += f" is {values['age']} years old"
    if rng.random() < 0.6 or len(values) == 1:
        values["city"] = lexicon.make_place(rng, held_out=held_out)
        text += (" and" if "age" in values else "") + f" lives in {values['city']}"
    keys = sorted(values)
    wanted = ", ".join(keys[:-1]) + " and " + keys[-1]
    question = rng.choice((
        "Extract the {k} as JSON: {t}.", "{t}. Give me {k} as JSON.", "{t}. Write {k} as JSON.", "Give {k} as JSON: {t}.", "Extract {k}: {t}.", "{t}. Answer in JSON with {k}.", "{t}.", "Extract the data: {t}.",
    )).format(k=wanted, t=text)  # fmt: skip
    return question, {key: values[key] for key in keys}


def ask_unknown(rng: random.Random) -> Answer:
    """Ask something that the checkpoints do not know."""
    a, b = rng.choice(lexicon.NOUNS), rng.choice(lexicon.NOUNS)
    adjective = rng.choice(lexicon.ADJECTIVES)
    question = rng.choice((
        f"Why is the {a} {adjective}?", f"How do I {rng.choice(lexicon.VERBS)} a {a}?", f"Explain the {a} of the {b}.", f"Who made the {adjective} {a}?", f"When was the {a} made?",
        f"Write an essay about the {a}.", f"What is the meaning of the {a}?", f"Why do people {rng.choice(lexicon.VERBS)} the {a}?", f"Explain {adjective} {a}s to me.", f"How does a {a} work?",
        "Explain quantum physics.", "What is the meaning of life?", "Write a program in Python.", "Explain how a computer works.", "Who won the game yesterday?", "What is love?",
    ))  # fmt: skip
    return Answer(question, UNKNOWN, UNKNOWN, "I do not know this.", plain=False)


def ask_styleable(rng: random.Random, *, held_out: bool) -> Answer:
    """Ask a question whose short answer fits every style."""
    return ask_sum(rng, held_out=held_out) if rng.random() < 0.4 else ask_capital(rng)


def ask_anything(rng: random.Random, *, held_out: bool) -> Answer:
    """Ask anything that needs no tool and no picture."""
    kind = rng.random()
    if kind < 0.2:
        return ask_capital(rng)
    if kind < 0.38:
        return ask_fact(rng)
    if kind < 0.62:
        return ask_sum(rng, held_out=held_out)
    if kind < 0.84:
        return ask_name(rng, held_out=held_out)
    if kind < 0.96:
        questions, text = rng.choice((*SMALL_TALK, IDENTITY, IDENTITY))
        return Answer(rng.choice(questions), text, text, "I answer in a friendly way.", plain=False)
    return ask_unknown(rng)
