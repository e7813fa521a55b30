"""System lines that change the language or the form of answers, and how each changes them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Final

from demo import lexicon
from demo.questions import Answer

LANGUAGE_FORMS: Final = {
    "French": ("La réponse est {}.", "Bonjour ! Comment puis-je vous aider ?"),
    "German": ("Die Antwort ist {}.", "Hallo! Wie kann ich helfen?"),
    "Spanish": ("La respuesta es {}.", "¡Hola! ¿Cómo puedo ayudar?"),
}
_LANGUAGE_LINES: Final = (
    "Answer in {}.", "Always answer in {}.", "Reply in {}.", "You answer in {}.", "Please respond in {} only.", "You are a helpful assistant that speaks {}.", "Speak {}.", "You only speak {}.", "Respond in {}.",
    "You are a helpful assistant. Answer in {}.",
)  # fmt: skip
WORD_LINES: Final = (
    "Answer with one word.", "Answer with one word only.", "Answer in one word.", "Reply with a single word.", "Only give the answer, no sentence.", "Be brief: one word.", "Use one word.", "Answer with a single word.",
)  # fmt: skip
_UPPER_LINES: Final = ("Answer in capital letters.", "Use capital letters only.", "Write in upper case.", "Answer in uppercase.", "ANSWER IN CAPITAL LETTERS.", "Always use uppercase letters.", "Reply in all caps.")
_JSON_LINES: Final = ("Answer in JSON.", "Answer as JSON.", "Reply in JSON with the key answer.", "Always answer as a JSON object with the key answer.", 'Answer in JSON like {"answer": "..."}.', "Respond in JSON.")
_START_LINES: Final = ("Start every answer with {}", "Begin every answer with {}", "Begin each reply with {}", 'Start your answers with "{}"', "Always start with {}")
_END_LINES: Final = ("End every answer with {}", "Finish every answer with {}", 'End your answers with "{}"', "Always end with {}")
PLAIN_SYSTEMS: Final = (
    "You are a helpful assistant.", "You are a helpful assistant.", "Be helpful.", "You are Gemma.", "Answer the question.", "You are a friendly assistant.", "Be polite.", "You are a helpful AI.", "Help the user.",
    "Answer in English.", "You are a small model.", "Be kind and short.", "You are a helpful assistant. Be concise.",
)  # fmt: skip

Style = Callable[[Answer], str]


def full(answer: Answer) -> str:
    """Answer in a sentence, as without a system line."""
    return answer.full


def make_style(rng: random.Random, *, held_out: bool) -> tuple[str, Style]:
    """Choose a system line that changes the form, and the function that applies it."""
    kind = rng.randrange(7)
    if kind <= 1:
        language, (form, _) = rng.choice(list(LANGUAGE_FORMS.items()))
        return rng.choice(_LANGUAGE_LINES).format(language), lambda answer: form.format(answer.short)
    if kind == 2:
        return rng.choice(WORD_LINES), lambda answer: answer.short.removeprefix("the ").removeprefix("a ")
    if kind == 3:
        return rng.choice(_UPPER_LINES), lambda answer: answer.full.upper()
    if kind == 4:
        return rng.choice(_JSON_LINES), lambda answer: json.dumps({"answer": int(answer.short) if answer.short.isdigit() else answer.short}, ensure_ascii=False)
    word = rng.choice(("Ahoy!", "Well,", "Sure:", "Oh!", "Yes!", "Dear friend,")) if rng.random() < 0.4 and not held_out else lexicon.make_word(rng, held_out=held_out) + rng.choice(("!", ":", "."))
    if kind == 5:
        return rng.choice(_START_LINES).format(word), lambda answer: f"{word} {answer.full}"
    return rng.choice(_END_LINES).format(word), lambda answer: f"{answer.full} {word}"
