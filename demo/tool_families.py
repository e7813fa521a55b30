"""The kinds of tools that training knows: names, descriptions, parameters, requests in ordinary words, and results.

Names, descriptions and parameter names vary, so that a checkpoint has to read the declaration rather than remember it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from demo import lexicon

Value = str | int | float | bool
Maker = Callable[[random.Random, bool], Value]


@dataclass(frozen=True)
class Slot:
    """One parameter: its possible names, its JSON type, its possible descriptions and how a value is made."""

    name: str
    keys: tuple[str, ...]
    make: Maker
    descriptions: tuple[str, ...]
    type: str = "string"
    enum: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A kind of tool. Texts name slots in braces; ``value`` stands for what the tool returned."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    slots: tuple[Slot, ...]
    requests: tuple[str, ...]
    answer: str
    result: Callable[[random.Random, bool], dict[str, Value]] | None = None
    """Makes the fields of a result; None marks an action, whose result only says that it was done."""
    pair_requests: tuple[str, ...] = ()
    """Requests for two calls at once, with the slots of the second numbered: ``{place}`` and ``{place2}``."""
    nouns: tuple[str, ...] = ()
    """What a made-up family is about."""
    done: tuple[str, ...] = ("ok", "done", "success", '{"status": "ok"}', '{"ok": true}', '{"status": "done"}', '{"success": true}')


def _place(rng: random.Random, held_out: bool) -> Value:
    return lexicon.make_place(rng, held_out=held_out)


def _person(rng: random.Random, held_out: bool) -> Value:
    return lexicon.make_person(rng, held_out=held_out)


def _phrase(rng: random.Random, held_out: bool) -> Value:
    return lexicon.make_phrase(rng, held_out=held_out)


def _number(rng: random.Random, held_out: bool) -> Value:
    return lexicon.make_number(rng, held_out=held_out)


def _code(rng: random.Random, held_out: bool) -> Value:
    return lexicon.make_code(rng, held_out=held_out)


def _word(rng: random.Random, held_out: bool) -> Value:
    return lexicon.make_word(rng, held_out=held_out) if held_out or rng.random() < 0.6 else rng.choice(lexicon.NOUNS)


def _clock(rng: random.Random, held_out: bool) -> Value:
    del held_out
    return f"{rng.randrange(24)}:{rng.choice(('00', '15', '30', '45', '10', '20', '05'))}"


def _small(rng: random.Random, held_out: bool) -> Value:
    del held_out
    return rng.randint(1, 60)


def _choice(*options: Value) -> Maker:
    return lambda rng, _held_out: rng.choice(options)


LANGUAGES: Final = ("French", "German", "Spanish", "Italian", "Dutch", "Polish", "Greek", "Japanese")
ROOMS: Final = ("kitchen", "bedroom", "office", "garden", "hall", "bathroom", "living room", "garage")
SKIES: Final = ("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "stormy", "clear")

_PLACE = Slot("place", ("city", "city", "city", "location", "location", "place", "town"), _place,
              ("City name", "The city", "Name of the city", "The city, for example Paris", "The city and state, e.g. San Francisco, CA", "City", ""))  # fmt: skip
_PERSON = Slot("person", ("to", "name", "recipient", "person", "user", "contact"), _person, ("Name of the person", "Who gets it", "The person", ""))
_TEXT = Slot("text", ("text", "message", "body", "content"), _phrase, ("The text", "Text to use", "The message", ""))
_CODE = Slot("code", ("id", "code", "number", "key"), _code, ("The code", "The id", "Its number", ""))


def _weather(rng: random.Random, held_out: bool) -> dict[str, Value]:
    del held_out
    return {"degrees": rng.randint(-9, 39), "sky": rng.choice(SKIES)}


def _value_of(make: Maker) -> Callable[[random.Random, bool], dict[str, Value]]:
    return lambda rng, held_out: {"value": make(rng, held_out)}


FAMILIES: Final[tuple[Family, ...]] = (
    Family(
        ("get_weather", "get_weather", "get_weather", "weather", "get_current_weather", "check_weather", "weather_lookup"),
        ("Get the weather for a city", "Get the current weather", "Get weather", "Returns the weather of a place", "Current weather in a given location", "Get the current weather in a given location"),
        (_PLACE,),
        ("What is the weather in {place}?", "What's the weather in {place}?", "How is the weather in {place}?", "What is the weather like in {place} today?",
         "Tell me the weather in {place}.", "weather in {place}", "Is it raining in {place}?", "Is it cold in {place}?", "How warm is it in {place}?",
         "What's the weather like in {place}?", "Do I need an umbrella in {place}?", "Check the weather in {place}, please.", "How is the weather in {place} right now?",
         "What is the temperature in {place}?"),
        "In {place} it is {degrees} degrees and {sky}.", _weather,
        ("What is the weather in {place} and {place2}?", "What's the weather in {place} and in {place2}?", "How is the weather in {place} and {place2}?",
         "Compare the weather in {place} and {place2}.", "Tell me the weather in {place} and in {place2}."),
    ),
    Family(
        ("get_time", "current_time", "get_current_time", "time_in", "clock"),
        ("Get the current time in a city", "Returns the local time", "Get the time", "Current time of a place"),
        (_PLACE,),
        ("What time is it in {place}?", "What is the time in {place}?", "Tell me the time in {place}.", "How late is it in {place}?", "Current time in {place}?"),
        "In {place} it is {value}.", _value_of(_clock),
        ("What time is it in {place} and {place2}?", "What is the time in {place} and in {place2}?"),
    ),
    Family(
        ("get_population", "population", "count_people"),
        ("Get the number of people in a city", "Population of a city"),
        (_PLACE,),
        ("How many people live in {place}?", "What is the population of {place}?", "Population of {place}?"),
        "{place} has {value} people.", _value_of(_number),
        ("How many people live in {place} and in {place2}?",),
    ),
    Family(
        ("send_message", "send_text", "message_person", "send_email", "write_to"),
        ("Send a message to a person", "Sends a text to someone", "Send an email to a person"),
        (_PERSON, _TEXT),
        ("Send a message to {person}: {text}", 'Send {person} the message "{text}".', "Tell {person}: {text}", 'Write to {person}: "{text}"',
         "Send {person} this message: {text}", 'Send an email to {person} with the text "{text}".', "Message {person}: {text}"),
        "The message to {person} was sent.",
    ),
    Family(
        ("create_note", "add_note", "save_note", "write_note", "note"),
        ("Save a note", "Write down a note", "Creates a new note"),
        (_TEXT,),
        ("Make a note: {text}", 'Save the note "{text}".', "Note this: {text}", "Write down: {text}", 'Add a note that says "{text}".'),
        "The note was saved.",
    ),
    Family(
        ("set_reminder", "remind", "create_reminder", "add_reminder"),
        ("Set a reminder", "Remind the user of something at a time", "Create a reminder"),
        (Slot("text", ("text", "task", "what", "title"), _phrase, ("What to remember", "The task", "")),
         Slot("time", ("time", "at", "when"), _clock, ("The time, such as 7:30", "When", "Time of day", ""))),
        ("Remind me at {time}: {text}", "Set a reminder for {time}: {text}", "At {time} remind me: {text}", 'Create a reminder "{text}" at {time}.'),
        "The reminder for {time} is set.",
    ),
    Family(
        ("set_timer", "start_timer", "timer"),
        ("Set a timer", "Start a timer of some minutes"),
        (Slot("minutes", ("minutes", "duration", "time"), _small, ("Minutes", "Number of minutes", ""), "integer"),),
        ("Set a timer for {minutes} minutes.", "Start a timer of {minutes} minutes.", "Timer, {minutes} minutes, please."),
        "The timer is set to {minutes} minutes.",
    ),
    Family(
        ("multiply", "multiply_numbers", "times", "product"),
        ("Multiply two numbers", "Returns the product of two numbers"),
        (Slot("a", ("a", "x", "first"), _number, ("First number", "The first factor", ""), "integer"),
         Slot("b", ("b", "y", "second"), _number, ("Second number", "The second factor", ""), "integer")),
        ("What is {a} times {b}?", "Multiply {a} and {b}.", "Multiply {a} by {b}.", "How much is {a} times {b}?", "What is {a} * {b}?"),
        "{a} times {b} is {value}.", _value_of(_number),
    ),
    Family(
        ("add", "add_numbers", "sum", "calculator_add"),
        ("Add two numbers", "Returns the sum of two numbers", "Calculate the sum of two integers"),
        (Slot("a", ("a", "x", "first"), _number, ("First number", "The first number", ""), "integer"),
         Slot("b", ("b", "y", "second"), _number, ("Second number", "The second number", ""), "integer")),
        ("Use the tool to add {a} and {b}.", "Add {a} and {b} with the tool.", "Use the calculator: {a} + {b}", "Call the tool for {a} plus {b}.", "Add the numbers {a} and {b}."),
        "The sum is {value}.", _value_of(_number),
    ),
    Family(
        ("get_stock_price", "stock_price", "get_price", "quote"),
        ("Get the price of a stock", "Current stock price", "Price of a share"),
        (Slot("code", ("symbol", "ticker", "stock"), _code, ("Stock symbol", "The symbol", "Ticker", "")),),
        ("What is the stock price of {code}?", "How much is the stock {code}?", "What does a share of {code} cost?", "Price of the stock {code}?"),
        "The stock {code} costs {value}.", _value_of(_number),
        ("What are the stock prices of {code} and {code2}?",),
    ),
    Family(
        ("search", "web_search", "search_web", "find", "lookup"),
        ("Search the web", "Find pages on the web", "Search for something"),
        (Slot("text", ("query", "q", "text", "term"), _phrase, ("What to search for", "The query", "Search words", "")),),
        ("Search for {text}.", 'Search the web for "{text}".', "Look up {text}, please.", "Find something on the web about {text}.", "Google {text}."),
        "I found this: {value}", _value_of(_phrase),
    ),
    Family(
        ("translate", "translate_text", "translator"),
        ("Translate a text", "Translates text to another language"),
        (Slot("text", ("text", "phrase", "input"), _phrase, ("The text", "What to translate", "")),
         Slot("language", ("language", "target", "to", "target_language"), _choice(*LANGUAGES), ("Target language", "The language", ""))),
        ('Translate "{text}" to {language}.', "Translate to {language}: {text}", 'What is "{text}" in {language}?', 'How do you say "{text}" in {language}?'),
        "In {language} it is: {value}", _value_of(_phrase),
    ),
    Family(
        ("set_light", "switch_light", "control_light", "light"),
        ("Switch a light on or off", "Controls the light of a room"),
        (Slot("room", ("room", "where", "area"), _choice(*ROOMS), ("The room", "Which room", "")),
         Slot("on", ("on", "state", "power"), _choice(True, False), ("True to switch it on", "On or off", ""), "boolean")),
        ("Turn {on} the light in the {room}.", "Switch {on} the light in the {room}.", "Turn the {room} light {on}.", "Please turn {on} the {room} light."),
        "The light in the {room} is {on}.",
    ),
    Family(
        ("get_order", "order_status", "track_order", "get_order_status"),
        ("Get the status of an order", "Track an order", "Look up an order by its number"),
        (Slot("code", ("order_id", "id", "order", "number"), _code, ("The order number", "Order id", "")),),
        ("Where is my order {code}?", "What is the status of order {code}?", "Track order {code}.", "Check my order {code}, please."),
        "The order {code} is {value}.", lambda rng, _held_out: {"value": rng.choice(("shipped", "delivered", "lost", "packed", "late", "waiting", "on its way"))},
        ("What is the status of the orders {code} and {code2}?",),
    ),
    Family(
        ("play_music", "play_song", "play", "start_music"),
        ("Play a song", "Play music of an artist"),
        (Slot("text", ("song", "title", "name"), _word, ("Name of the song", "The song", "")),),
        ("Play {text}.", "Play the song {text}.", "Put on {text}, please.", "I want to hear {text}."),
        "Now playing {text}.",
    ),
    Family(
        ("book_table", "reserve_table", "make_reservation"),
        ("Book a table in a restaurant", "Reserve a table"),
        (Slot("person", ("name", "guest", "person"), _person, ("Name of the guest", "For whom", "")),
         Slot("count", ("people", "guests", "seats"), _choice(*range(1, 13)), ("Number of people", "How many people", ""), "integer"),
         Slot("time", ("time", "at", "when"), _clock, ("The time", "When", ""))),
        ("Book a table for {count} people at {time} for {person}.", "Reserve a table for {person}, {count} people, {time}.", "Book a table for {person} at {time} with {count} people."),
        "The table for {person} at {time} is booked.",
    ),
    Family(
        ("convert_currency", "exchange", "convert_money"),
        ("Convert money to another currency", "Currency conversion"),
        (Slot("amount", ("amount", "value", "sum"), _number, ("The amount", "How much", ""), "integer"),
         Slot("source", ("from", "source", "from_currency"), _choice("USD", "EUR", "GBP", "JPY", "CHF"), ("Currency to convert from", "Source currency", "")),
         Slot("target", ("to", "target", "to_currency"), _choice("USD", "EUR", "GBP", "JPY", "CHF"), ("Currency to convert to", "Target currency", ""))),
        ("Convert {amount} {source} to {target}.", "How much is {amount} {source} in {target}?", "What are {amount} {source} in {target}?"),
        "{amount} {source} are {value} {target}.", _value_of(_number),
    ),
    Family(
        ("get_user", "find_user", "user_info", "get_age"),
        ("Get the age of a person", "Look up how old a person is"),
        (Slot("person", ("name", "user", "person"), _person, ("Name of the person", "The user", "")),),
        ("How old is {person}?", "What is the age of {person}?", "Tell me the age of {person}.", "Find out how old {person} is."),
        "{person} is {value} years old.", _value_of(_small),
        ("How old are {person} and {person2}?", "Tell me the age of {person} and of {person2}."),
    ),
)  # fmt: skip


THINGS: Final = lexicon.NOUNS[::3]
"""What made-up tools are about: few enough nouns that a small model meets each of them often."""


def make_family(rng: random.Random, taken: Collection[str] = ()) -> Family:
    """Make a family about a random thing, so that only the words of the declaration tell which tool is meant.

    Args:
        rng: Source of every choice.
        taken: Nouns that other tools of the conversation are about: with one of them two tools would fit a request.
    """
    thing, owner = rng.sample([noun for noun in THINGS if noun not in taken], 2)
    verb = rng.choice(("get", "get", "get", "find", "show"))
    key = rng.choice((owner, "name", f"{owner}_name", "id", "key", "item"))
    make = rng.choice((_word, _person, _code, _place))
    return Family(
        (f"{verb}_{thing}",),
        (f"{verb.capitalize()} the {thing} of the {owner}", f"Returns the {thing} of a {owner}", f"{verb.capitalize()} a {thing}"),
        (Slot("text", (key,), make, (f"The {owner}", f"Name of the {owner}", "")),),
        (f"What is the {thing} of the {owner} {{text}}?", f"{verb.capitalize()} the {thing} of the {owner} {{text}}.", f"I need the {thing} of {{text}}.", f"What {thing} has {{text}}?"),
        f"The {thing} of {{text}} is {{value}}.",
        _value_of(rng.choice((_word, _number, _code))),
        (f"What is the {thing} of {{text}} and of {{text2}}?",),
        nouns=(thing, owner),
    )
