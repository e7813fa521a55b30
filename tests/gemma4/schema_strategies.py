"""Random JSON Schemas within what a grammar can enforce, each with a strategy for documents that satisfy it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Case = tuple[dict[str, Any], st.SearchStrategy[Any]]

KEYS = ["city", "Days", "a b", "x-y", "größe", "type", "properties", "a:b", "q'd", "_", "n1", "Zeta", "alpha"]
PATTERNS = {
    r"^[A-Z][a-z]{2,5}$": st.from_regex(r"\A[A-Z][a-z]{2,5}\Z"),
    r"^(foo|bar/baz)\d+$": st.from_regex(r"\A(foo|bar/baz)[0-9]+\Z"),
    r"x+y": st.from_regex(r"\A[a-z ]*x+y[a-z<>\"]*\Z"),
    r"^\w+@\w+\.(com|org)$": st.from_regex(r"\A[a-z0-9_]+@[a-z0-9_]+\.(com|org)\Z"),
}
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    [
        "<b>x</b>",
        'say "hi"',
        "a,b:{c}[d]",
        "C:\\new",
        "<|turn>",
        "<tool_call|>",
        " lead",
        "null",
        "00420",
        "line\nbreak",
    ]
)
# Grammars refuse to list texts that spell markers: see the test of its own.
LISTED = TEXT.filter(lambda text: "|" not in text)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
    | LISTED
)


def _short(value: float) -> float:
    """Round, and write whole numbers as such: a bound written as ``5.0`` is accepted as ``5`` only."""
    return int(value) if round(value, 2).is_integer() else round(value, 2)


def strings() -> st.SearchStrategy[Case]:
    """Strings with lengths, patterns, formats or enums."""
    lengths = st.tuples(st.integers(0, 4), st.integers(4, 8)).map(
        lambda b: (
            {"type": "string", "minLength": b[0], "maxLength": b[1]},
            st.text(st.characters(exclude_categories=("Cs",)), min_size=b[0], max_size=b[1]),
        )
    )
    patterns = st.sampled_from(sorted(PATTERNS)).map(lambda p: ({"type": "string", "pattern": p}, PATTERNS[p]))
    dates = st.just(({"type": "string", "format": "date"}, st.dates().map(str)))
    enums = st.lists(LISTED, min_size=1, max_size=4, unique=True).map(
        lambda values: ({"type": "string", "enum": values}, st.sampled_from(values))
    )
    return st.one_of(st.just(({"type": "string"}, TEXT)), lengths, patterns, dates, enums)


def numbers() -> st.SearchStrategy[Case]:
    """Integers and numbers with and without bounds."""
    bounds = st.tuples(st.integers(-50, 50), st.integers(0, 100))
    bounded = bounds.map(
        lambda b: ({"type": "integer", "minimum": b[0], "maximum": b[0] + b[1]}, st.integers(b[0], b[0] + b[1]))
    )
    floats = bounds.map(
        lambda b: (
            {"type": "number", "minimum": b[0], "maximum": b[0] + b[1]},
            st.floats(b[0], b[0] + b[1]).map(_short) | st.integers(b[0], b[0] + b[1]),
        )
    )
    free = st.just(({"type": "integer"}, st.integers(-(10**25), 10**25)))
    exclusive = st.just(({"type": "number", "exclusiveMinimum": 0}, st.integers(1, 10**9)))
    return st.one_of(bounded, floats, free, exclusive)


def scalars() -> st.SearchStrategy[Case]:
    """Any scalar schema."""
    constants = SCALARS.map(lambda value: ({"const": value}, st.just(value)))
    enums = st.lists(SCALARS, min_size=1, max_size=4).map(lambda values: ({"enum": values}, st.sampled_from(values)))
    simple: list[Case] = [({"type": "boolean"}, st.booleans()), ({"type": "null"}, st.none()), ({}, SCALARS)]
    lists = st.just(({"type": ["string", "null", "integer"]}, TEXT | st.none() | st.integers()))
    return st.one_of(strings(), numbers(), constants, enums, st.sampled_from(simple), lists)


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    """Arrays with limits, and with places of their own for the first items."""
    schema, item = draw(inner)
    low = draw(st.integers(0, 2))
    high = draw(st.none() | st.integers(low, low + 2))
    limits: dict[str, Any] = {"minItems": low} | ({} if high is None else {"maxItems": high})
    if draw(st.booleans()):
        return {"type": "array", "items": schema, **limits}, st.lists(
            item, min_size=low, max_size=4 if high is None else high
        )
    first, document = draw(inner)
    body = {"type": "array", "prefixItems": [first], "items": schema, **limits}
    longest = 3 if high is None else high
    lengths = st.integers(low, max(low, longest))
    documents = lengths.flatmap(lambda n: st.tuples(*([document, *[item] * (n - 1)] if n else [])).map(list))
    return body, documents


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    """Objects with required, optional and further properties."""
    names = draw(st.lists(st.sampled_from(KEYS), max_size=5, unique=True))
    children = {name: draw(inner) for name in names}
    required = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {n: c[0] for n, c in children.items()},
        "required": required,
    }
    others = draw(st.sampled_from(["closed", "unsaid", "some"]))
    extra: st.SearchStrategy[dict[str, Any]] = st.just({})
    if others == "closed":
        schema["additionalProperties"] = False
    elif others == "some":
        other, document = draw(inner)
        schema["additionalProperties"] = other
        extra = st.dictionaries(st.sampled_from(["other", "more words", "zz", "a,b"]), document, max_size=2)
    optional = {n: c[1] for n, c in children.items() if n not in required}
    declared = st.fixed_dictionaries({n: children[n][1] for n in required}, optional=optional)
    return schema, st.tuples(declared, extra).map(lambda pair: {**pair[0], **pair[1]})


@st.composite
def unions(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    """One of two schemas, or nothing."""
    (left, one), (right, other) = draw(inner), draw(inner)
    if draw(st.booleans()):
        return {"anyOf": [left, {"type": "null"}]}, one | st.none()
    return {"anyOf": [left, right]}, one | other


def values() -> st.SearchStrategy[Case]:
    """Any schema."""
    return st.recursive(scalars(), lambda inner: st.one_of(arrays(inner), objects(inner), unions(inner)), max_leaves=6)


def parameters() -> st.SearchStrategy[Case]:
    """Schemas of a tool's parameters."""
    return objects(values())
