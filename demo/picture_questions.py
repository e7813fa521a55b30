"""Questions about one picture or two, in many wordings, with their answers."""

from __future__ import annotations

import random

from demo.pictures import Picture
from demo.questions import Answer


def ask_picture(rng: random.Random, picture: Picture) -> Answer:
    """Ask for colour, shape or both."""
    color, shape = picture.color, picture.shape
    kind = rng.randrange(3)
    if kind == 0:
        question = rng.choice((
            "What colour is the shape?", "What color is the shape?", "What color is this?", "What colour is this?", "Which colour is it?", "Which color is it?", "What colour do you see?", "Name the colour.",
            "What color is it?", "What is the color of the shape?", "What is the colour of the {s}?", "What color is the {s}?", "What colour is the {s}?", "Tell me the color.", "What color is the object?",
            "What colour is it?", "What color do you see?", "Which color does the shape have?",
        )).format(s=shape)  # fmt: skip
        named = shape if shape in question else "shape"
        return Answer(question, f"The {named} is {color}.", color, f"I see {picture.label}.")
    if kind == 1:
        question = rng.choice((
            "What shape is this?", "Which shape do you see?", "What shape is it?", "Name the shape.", "What is the shape?", "What shape is in the picture?", "Which shape is this?", "What shape do you see?",
            "What shape is shown?", "Which shape is in the image?", "What shape is in the image?", "Tell me the shape.",
        ))  # fmt: skip
        return Answer(question, f"It is a {shape}.", shape, f"I see {picture.label}.")
    question = rng.choice((
        "What is in the picture?", "What do you see?", "Describe the picture.", "Describe the image.", "What is this?", "What is in this image?", "What is in the image?", "What does the picture show?",
        "Describe this image.", "What's in this image?", "What can you see?", "Describe what you see.", "What colour and shape is this?", "What is shown here?", "Describe this picture.", "What's in the picture?",
        "Look at the picture. What is it?", "What do you see in this picture?", "What do you see in the image?",
    ))  # fmt: skip
    label = picture.label
    return Answer(question, f"I see {label}.", label, f"I see {label}.")


def ask_pair(rng: random.Random, first: Picture, second: Picture, kinds: int = 5) -> Answer:
    """Ask which of two pictures is which, or about one or both of them; ``kinds`` 2 asks only which is which."""
    which, picture = rng.choice((("first", first), ("second", second)))
    thought = f"First: {first.label}. Second: {second.label}."
    kind = rng.randrange(kinds)
    word = rng.choice(("picture", "picture", "image", "one"))
    if kind == 0 and first.shape != second.shape:
        question = rng.choice((
            "Which {w} shows the {s}, the first or the second?", "Which {w} shows a {s}?", "Which {w} is the {s}?", "Is the {s} in the first or the second {w}?", "In which {w} is the {s}?", "Which {w} has the {s}?",
            "Which {w} shows the {s}?", "Which of the two pictures shows the {s}?", "Where is the {s}?",
        )).format(w=word, s=picture.shape)  # fmt: skip
        return Answer(question, f"The {picture.shape} is in the {which} picture.", which, thought)
    if kind == 1 and first.color != second.color:
        question = rng.choice((
            "Which {w} is {c}?", "Which {w} is {c}, the first or the second?", "Which {w} shows the {c} shape?", "In which {w} is the {c} shape?", "Is the {c} shape in the first or the second {w}?",
            "Which of the two pictures is {c}?", "Which {w} shows something {c}?", "Where is the {c} shape?",
        )).format(w=word, c=picture.color)  # fmt: skip
        return Answer(question, f"The {picture.color} shape is in the {which} picture.", which, thought)
    if kind <= 2:
        question = rng.choice(("What is in the {n} {w}?", "What does the {n} {w} show?", "Describe the {n} {w}.", "What do you see in the {n} {w}?", "What is the {n} {w}?")).format(n=which, w=rng.choice(("picture", "image")))
        return Answer(question, f"I see {picture.label}.", picture.label, thought)
    if kind == 3:
        question = rng.choice(("What colour is the shape in the {n} {w}?", "What color is the {n} {w}?", "What colour is the {n} {w}?", "Which color has the {n} {w}?")).format(n=which, w=rng.choice(("picture", "image", "shape")))
        return Answer(question, f"The shape is {picture.color}.", picture.color, thought)
    question = rng.choice(("What is in the pictures?", "Describe both pictures.", "What do the pictures show?", "What do you see?", "Describe the images.", "Compare the two pictures.", "What is in these images?"))
    return Answer(question, f"The first is {first.label} and the second is {second.label}.", f"{first.label} and {second.label}", thought)
