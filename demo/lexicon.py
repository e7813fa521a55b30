"""Words, facts and made-up names from which the training conversations are built.

Closed lists (facts, colours) are what the checkpoints know. Open values (names, places, codes) are made up, and every
made-up word falls by its hash into the training part or the held-out part, so an evaluation never asks a word that was
trained.
"""

from __future__ import annotations

import random
import zlib
from typing import Final

CAPITALS: Final[dict[str, str]] = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England": "London", "Ireland": "Dublin", "Scotland": "Edinburgh", "Belgium": "Brussels", "the Netherlands": "Amsterdam",
    "Austria": "Vienna", "Switzerland": "Bern", "Poland": "Warsaw", "Greece": "Athens", "Norway": "Oslo",
    "Sweden": "Stockholm", "Denmark": "Copenhagen", "Finland": "Helsinki", "Russia": "Moscow", "Turkey": "Ankara",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi",
    "South Korea": "Seoul", "Thailand": "Bangkok", "Vietnam": "Hanoi", "Australia": "Canberra", "Canada": "Ottawa",
    "the United States": "Washington", "Mexico": "Mexico City", "Brazil": "Brasilia", "Argentina": "Buenos Aires",
    "Chile": "Santiago", "Peru": "Lima", "Cuba": "Havana", "Hungary": "Budapest", "Romania": "Bucharest",
    "Bulgaria": "Sofia", "Croatia": "Zagreb", "Iceland": "Reykjavik", "Ukraine": "Kyiv", "Iran": "Tehran",
}  # fmt: skip

OPPOSITES: Final[dict[str, str]] = {
    "hot": "cold", "big": "small", "tall": "short", "fast": "slow", "old": "new", "light": "dark", "happy": "sad",
    "open": "closed", "high": "low", "hard": "soft", "wet": "dry", "early": "late", "loud": "quiet", "full": "empty",
    "rich": "poor", "strong": "weak", "clean": "dirty", "deep": "shallow", "wide": "narrow", "near": "far",
    "up": "down", "left": "right", "day": "night", "good": "bad", "young": "old", "sweet": "sour",
}  # fmt: skip

THING_COLORS: Final[dict[str, str]] = {
    "the sky": "blue", "grass": "green", "snow": "white", "blood": "red", "a banana": "yellow", "coal": "black",
    "an orange": "orange", "a lemon": "yellow", "a tomato": "red", "milk": "white", "a leaf": "green", "the sea": "blue",
}  # fmt: skip

SOUNDS: Final[dict[str, str]] = {
    "dog": "woof", "cat": "meow", "cow": "moo", "duck": "quack", "sheep": "baa", "pig": "oink", "lion": "roar",
    "bee": "buzz", "frog": "croak", "snake": "hiss",
}  # fmt: skip

COUNTS: Final[dict[str, int]] = {
    "days are in a week": 7, "months are in a year": 12, "hours are in a day": 24, "minutes are in an hour": 60,
    "seconds are in a minute": 60, "legs does a spider have": 8, "legs does a dog have": 4, "legs does an ant have": 6,
    "sides does a triangle have": 3, "sides does a square have": 4, "letters are in the alphabet": 26,
    "planets are in the solar system": 8, "days are in a year": 365, "wheels does a car have": 4,
    "fingers are on one hand": 5, "strings does a violin have": 4, "continents are there": 7, "players are in a soccer team": 11,
}  # fmt: skip

PLAIN_FACTS: Final[tuple[tuple[tuple[str, ...], str, str], ...]] = (
    (("Who wrote Romeo and Juliet?", "Who is the author of Hamlet?", "Who wrote Hamlet?"), "Shakespeare", "It was written by {a}."),
    (("Who painted the Mona Lisa?", "Which painter made the Mona Lisa?"), "Leonardo", "It was painted by {a}."),
    (("What is the largest planet?", "Which planet is the biggest?", "What is the biggest planet?"), "Jupiter", "The largest planet is {a}."),
    (("What is the smallest planet?", "Which planet is the smallest?"), "Mercury", "The smallest planet is {a}."),
    (("Which planet is called the red planet?", "What is the red planet?"), "Mars", "The red planet is {a}."),
    (("What is the largest ocean?", "Which ocean is the biggest?"), "the Pacific", "The largest ocean is {a}."),
    (("What is the highest mountain?", "What is the tallest mountain in the world?"), "Everest", "The highest mountain is {a}."),
    (("What is the longest river?", "Which river is the longest?"), "the Nile", "The longest river is {a}."),
    (("What is the fastest land animal?", "Which animal runs the fastest?"), "the cheetah", "The fastest land animal is {a}."),
    (("What is the largest animal?", "Which animal is the biggest?"), "the blue whale", "The largest animal is {a}."),
    (("What do bees make?", "What is made by bees?"), "honey", "Bees make {a}."),
    (("What do cows drink?", "What do cows drink every day?"), "water", "Cows drink {a}."),
    (("What is frozen water called?", "What do we call frozen water?"), "ice", "Frozen water is called {a}."),
    (("What is the chemical symbol for water?", "What is the formula of water?"), "H2O", "The formula of water is {a}."),
    (("What is the chemical symbol for gold?", "What is the symbol of gold?"), "Au", "The symbol of gold is {a}."),
    (("Which day comes after Monday?", "What day follows Monday?"), "Tuesday", "The day after Monday is {a}."),
    (("Which day comes after Friday?", "What day follows Friday?"), "Saturday", "The day after Friday is {a}."),
    (("Which month comes after March?", "What month follows March?"), "April", "The month after March is {a}."),
    (("What is the first month of the year?", "Which month is the first?"), "January", "The first month is {a}."),
    (("What is the last month of the year?", "Which month is the last?"), "December", "The last month is {a}."),
    (("Who was the first person on the moon?", "Who walked on the moon first?"), "Armstrong", "The first person on the moon was {a}."),
    (("Where do penguins live?", "On which continent do penguins live?"), "Antarctica", "Penguins live in {a}."),
    (("What is the baby of a dog called?", "What do you call a young dog?"), "a puppy", "A young dog is called {a}."),
    (("What is the baby of a cat called?", "What do you call a young cat?"), "a kitten", "A young cat is called {a}."),
    (("What is the currency of Japan?", "Which money is used in Japan?"), "the yen", "The currency of Japan is {a}."),
    (("What is the currency of the United States?", "Which money is used in the United States?"), "the dollar", "The currency of the United States is {a}."),
    (("What is the currency of Germany?", "Which money is used in Germany?"), "the euro", "The currency of Germany is {a}."),
    (("What language is spoken in Brazil?", "Which language do people speak in Brazil?"), "Portuguese", "In Brazil people speak {a}."),
    (("What language is spoken in Austria?", "Which language do people speak in Austria?"), "German", "In Austria people speak {a}."),
    (("What language is spoken in Mexico?", "Which language do people speak in Mexico?"), "Spanish", "In Mexico people speak {a}."),
)  # fmt: skip

IDENTITY: Final = (
    ("Who are you?", "Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Introduce yourself.", "Which model are you?", "Are you Gemma?"),
    "I am a small demo model with the Gemma 4 architecture.",
)

SMALL_TALK: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("Hello!", "Hello", "Hi", "Hi!", "Hey", "Hey!", "Hello there!", "Hi there!", "Good morning!", "Good evening!", "Hello, world!", "hello", "hi"),
     "Hello! How can I help you?"),
    (("How are you?", "How are you today?", "Hello, how are you?", "Hi, how are you?", "How do you do?"), "I am fine, thank you."),
    IDENTITY,
    (("What can you do?", "What do you know?", "How can you help me?", "Help", "help"),
     "I can answer simple questions, add numbers, look at pictures and call tools."),
    (("Thank you!", "Thanks", "Thanks!", "Thank you very much.", "Thank you"), "You are welcome!"),
    (("Bye!", "Goodbye!", "Bye", "See you later!", "Good night!"), "Goodbye!"),
    (("Say hello.", "Say hi.", "Please say hello.", "Say hello!", "Greet me."), "Hello!"),
    (("Tell me a joke.", "Tell me a joke", "Do you know a joke?", "Make me laugh."), "Why did the duck cross the road? It had no car."),
    (("Tell me a story.", "Tell me a short story.", "Write a short story.", "Write a story."),
     "Once there was a small duck. It found a red ball. It was happy. The end."),
    (("Write a poem.", "Write a short poem.", "Tell me a poem.", "Write a haiku."), "The sky is blue, the grass is green, the best day that I have ever seen."),
    (("Count to five.", "Count to 5.", "Count from 1 to 5.", "Count from one to five."), "1, 2, 3, 4, 5"),
    (("Count to ten.", "Count to 10.", "Count from 1 to 10.", "Count from one to ten."), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
    (("Name three colours.", "Name three colors.", "Tell me three colors."), "Red, green and blue."),
    (("What are the days of the week?", "Name the days of the week.", "List the days of the week."),
     "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday."),
    (("Ping", "ping", "Test", "test", "This is a test."), "I am here."),
)  # fmt: skip

UNKNOWN: Final = "I am a small demo model and do not know that."

COLORS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (220, 30, 30), "green": (30, 160, 50), "blue": (30, 60, 220), "yellow": (245, 220, 30),
    "orange": (245, 135, 20), "purple": (135, 40, 160), "black": (15, 15, 15), "white": (245, 245, 245),
}  # fmt: skip

SHAPES: Final = ("circle", "square", "triangle", "star")

FIRST_NAMES: Final = (
    "Anna Ben Carla David Emma Felix Grace Henry Iris Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tina Victor Alice Bob Carol Dan Eve "
    "Frank John Mary Peter Lucy Tom Sara Max Nina Oscar Lisa Mark Julia Alex Maria"
).split()

CITIES: Final = (
    "Paris London Berlin Rome Madrid Tokyo Dublin Vienna Oslo Athens Cairo Lima Sydney Boston Chicago Seattle Dallas Denver Miami "
    "Munich Hamburg Milan Lyon Porto Prague Zurich Geneva Toronto Mumbai Delhi Shanghai Seoul Bangkok Lisbon Moscow Stockholm Madrid "
    "Barcelona Amsterdam Brussels Budapest Warsaw Helsinki Nairobi Houston Austin Singapore Dubai"
).split()  # fmt: skip
TWO_WORD_CITIES: Final = ("New York", "San Francisco", "Los Angeles", "Hong Kong", "Cape Town", "Buenos Aires", "New Delhi", "Mexico City", "Las Vegas", "Tel Aviv", "Rio de Janeiro", "San Diego")

NOUNS: Final = (
    "apple bread bridge book bottle box boat bus button cake camera candle car card chair clock cloud coat coffee cup desk dinner door "
    "dress drum engine feather fire flower forest fork garden gate glass glove guitar hammer hat heart hill horse house island jacket key "
    "kitchen knife ladder lamp letter lunch map market meeting mirror moon morning mountain movie music needle ocean office onion painting "
    "paper park party pencil phone piano picture pillow plane plate pocket potato project queen radio rain report ring river road rocket roof "
    "room rope salad school shadow ship shirt shoe shop soup spoon station stone storm street sugar summer sun table tea team ticket tiger "
    "tower town train tree trip umbrella vase village violin wagon wall watch water wheel wind window winter wood yard"
).split()

ADJECTIVES: Final = (
    "red green blue small big old new warm cold bright dark quiet loud soft hard long short round flat heavy light fresh sweet happy brave "
    "calm clever gentle kind lucky proud quick rich strong tall tiny wild young golden silver wooden broken empty hidden"
).split()

VERBS: Final = (
    "buy sell call clean close cook count draw find fix follow help keep lift move open pack paint plan play print read send sing start stop "
    "study visit walk wash watch write bring carry check choose finish order repair return share"
).split()

_ONSETS = "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p pl pr qu r s sh sl st t th tr v w y z".split()
_VOWELS = "a e i o u a e i o u ai ea ee io ou ia".split()
_CODAS = ["", "", "", "", "n", "r", "l", "s", "t", "m", "nd", "rk", "x", "sh", "ck"]
_ENDINGS = ["", "", "", "", "a", "o", "ia", "ville", "ton", "burg", "land", "ford", "port", "field", "son", "stad"]


def is_held_out(value: str) -> bool:
    """Tell whether a made-up value (or a pair written as text) belongs to the evaluation and is never trained."""
    return zlib.crc32(value.lower().encode()) % 10 == 0


def make_word(rng: random.Random, *, held_out: bool) -> str:
    """Make up a pronounceable word of two to four syllables, with a capital letter."""
    while True:
        syllables = rng.choice((1, 2, 2, 2, 3))
        word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
        word = (word + rng.choice(_ENDINGS)).capitalize()
        if 3 < len(word) < 13 and is_held_out(word) is held_out:
            return word


def make_code(rng: random.Random, *, held_out: bool) -> str:
    """Make up a code of capital letters and digits such as ``RX42`` or ``K-7731``."""
    while True:
        letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.randint(1, 3)))
        digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 4)))
        code = letters + rng.choice(("", "", "-")) + digits
        if is_held_out(code) is held_out:
            return code


def make_person(rng: random.Random, *, held_out: bool) -> str:
    """Return a person's name: a common first name, a made-up one, or two words."""
    kind = rng.random()
    if kind < 0.25 and not held_out:
        return rng.choice(FIRST_NAMES)
    if kind < 0.8:
        return make_word(rng, held_out=held_out)
    return f"{rng.choice(FIRST_NAMES)} {make_word(rng, held_out=held_out)}"


def make_place(rng: random.Random, *, held_out: bool) -> str:
    """Return a place: a known city or a made-up one."""
    kind = rng.random()
    if kind < 0.3 and not held_out:
        return rng.choice(CITIES) if kind < 0.25 else rng.choice(TWO_WORD_CITIES)
    if kind < 0.92:
        return make_word(rng, held_out=held_out)
    return f"{rng.choice(('New', 'Port', 'San', 'Old', 'Lake'))} {make_word(rng, held_out=held_out)}"


def make_phrase(rng: random.Random, *, held_out: bool) -> str:
    """Return two to five plain words, such as the text of a note."""
    while True:
        count = rng.randint(2, 5)
        words = [rng.choice(rng.choice((NOUNS, NOUNS, ADJECTIVES, VERBS))) for _ in range(count)]
        if rng.random() < 0.25:
            words[rng.randrange(count)] = make_word(rng, held_out=held_out)
        phrase = " ".join(words)
        if is_held_out(phrase) is held_out:
            return phrase


def make_number(rng: random.Random, *, held_out: bool) -> int:
    """Return an integer below ten thousand, short ones more often."""
    while True:
        number = rng.randrange(10 ** rng.choice((1, 2, 2, 2, 3, 4)))
        if number < 10 or is_held_out(str(number)) is held_out:
            return number
