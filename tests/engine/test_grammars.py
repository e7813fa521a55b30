"""Constrained generation, on the core itself and through gRPC."""

from __future__ import annotations

import asyncio
import re

import pytest

from engine.core import FinishReason, Sampling
from engine.errors import GrammarMismatchError, InvalidGrammarError, InvalidRequestError

HOT = Sampling(temperature=2.0, top_k=0, top_p=1.0, seed=11)


@pytest.fixture
def spell(vocabulary):
    """A function that turns ids of ASCII text into that text, byte tokens included."""
    names = {token_id: text for text, token_id in vocabulary.ids.items()}

    def spelling(token_id: int) -> str:
        byte = re.fullmatch("<0x(..)>", names[token_id])
        return chr(int(byte[1], 16)) if byte else names[token_id]

    return lambda ids: "".join(map(spelling, ids))


def test_a_grammar_holds_and_ends_the_sequence(run, tools, vocabulary, spell):
    """Only what the grammar allows is drawn, and its end is a STOP without any stop id."""
    wanted = tools.request(vocabulary.prompt(10), 40, grammar="start: /[0-9]{6}/", sampling=HOT)
    result = run(lambda engine: tools.collect(engine, wanted))
    text = spell(result.token_ids)
    assert len(text) == 6
    assert text.isdigit()
    assert result.finish_reason is FinishReason.STOP


def test_special_tokens_are_addressed_by_id(run, tools, vocabulary, spell):
    """A special token stands in a grammar as its id, between ordinary text."""
    begin, end = vocabulary.ids["<|tool_call>"], vocabulary.ids["<tool_call|>"]
    grammar = f'start: <[{begin}]> "call:a" <[{end}]>'
    result = run(lambda engine: tools.collect(engine, tools.request(vocabulary.prompt(10), 40, grammar=grammar)))
    assert result.token_ids[0] == begin
    assert result.token_ids[-1] == end
    assert spell(result.token_ids[1:-1]) == "call:a"


def test_text_never_becomes_a_special_token(run, tools, vocabulary):
    """Free text in a grammar cannot be a special token, not even one that a huge bias favours."""
    marker = vocabulary.ids["<|tool_call>"]
    pushed = Sampling(temperature=0.0, logit_bias={marker: 1000.0})
    wanted = tools.request(vocabulary.prompt(10), 12, grammar="start: /(?s:.){40}/", sampling=pushed)
    assert marker not in run(lambda engine: tools.collect(engine, wanted)).token_ids


@pytest.mark.differs(tensorrt_llm="starts grammars with the first drawn id")
def test_a_grammar_goes_on_after_what_has_begun(run, tools, vocabulary, spell):
    """Ids at the prompt's end that the grammar covers are taken first; ones that do not fit are refused."""
    digits = tuple(vocabulary.ids[sign] for sign in "42")
    word = tuple(vocabulary.ids[sign] for sign in "no")
    prompt = vocabulary.prompt(10)
    fields = {"grammar": "start: /[0-9]{6}/", "grammar_begun": 2, "sampling": HOT}

    async def body(engine):
        result = await tools.collect(engine, tools.request((*prompt, *digits), 40, **fields))
        again = await tools.collect(engine, tools.request((*prompt, *digits), 40, grammar="start: /[0-9]{6}/"))
        with pytest.raises(GrammarMismatchError, match="first 0"):
            await tools.collect(engine, tools.request((*prompt, *word), 40, **fields))
        with pytest.raises(InvalidRequestError, match="grammar_begun"):
            await tools.collect(engine, tools.request(digits, 40, **{**fields, "grammar_begun": 3}))
        return result, again

    result, again = run(body)
    assert re.fullmatch("[0-9]{4}", spell(result.token_ids))
    assert re.fullmatch("[0-9]{6}", spell(again.token_ids))
    assert result.finish_reason is FinishReason.STOP


@pytest.mark.differs(tensorrt_llm="takes no min_tokens with a grammar")
def test_a_stop_id_may_follow_where_the_grammar_may_end(run, tools, vocabulary):
    """Stop ids are drawn only in places where the grammar accepts, whatever the model prefers."""
    stop = vocabulary.ids["<turn|>"]
    pushed = Sampling(temperature=0.0, logit_bias={stop: 1000.0})
    fields = {"stop_ids": (stop,), "sampling": pushed}

    async def body(engine):
        prompt = vocabulary.prompt(10)
        open_end = await tools.collect(engine, tools.request(prompt, 30, grammar="start: /[0-9]{3,8}/", **fields))
        closed = await tools.collect(engine, tools.request(prompt, 30, grammar="start: /[0-9]{3}/", **fields))
        late = await tools.collect(engine, tools.request(prompt, 30, grammar="start: /[0-9]*/", min_tokens=4, **fields))
        return open_end, closed, late

    open_end, closed, late = run(body)
    assert open_end.token_ids[-1] == stop
    assert len(open_end.token_ids) == 4
    assert open_end.finish_reason is closed.finish_reason is late.finish_reason is FinishReason.STOP
    assert stop not in closed.token_ids
    assert late.token_ids.index(stop) == 4


def test_ignored_stop_ids_lose_to_the_end_of_the_grammar(run, tools, vocabulary):
    """With ignore_stop_ids a finished grammar still ends the sequence."""
    stop = vocabulary.ids["<turn|>"]
    wanted = tools.request(
        vocabulary.prompt(10), 30, grammar="start: /[0-9]{2}/", stop_ids=(stop,), ignore_stop_ids=True
    )
    result = run(lambda engine: tools.collect(engine, wanted))
    assert result.finish_reason is FinishReason.STOP
    assert stop not in result.token_ids


@pytest.mark.parametrize(
    "grammar",
    [
        'start: "unclosed',
        "start: missing_rule",
        "start: <[99999999]>",
        'start: %json {"type": "nope"}',
        "",
        "x" * 1_000_001,
    ],
    ids=["syntax", "rule", "token", "schema", "empty", "size"],
)
def test_a_bad_grammar_is_refused_before_anything_is_drawn(run, tools, vocabulary, grammar):
    """A grammar that does not compile never turns into free text."""
    wanted = tools.request(vocabulary.prompt(10), 8, grammar=grammar)
    with pytest.raises(InvalidGrammarError) as caught:
        run(lambda engine: tools.collect(engine, wanted))
    assert isinstance(caught.value, InvalidRequestError)
    assert "grammar" in caught.value.message


def test_a_costly_grammar_does_not_hold_up_others(run, tools, vocabulary):
    """While a large grammar compiles, other sequences keep getting ids."""
    words = "|".join(f"{i:05d}{chr(97 + i % 26)}" for i in range(20000))
    large = f"start: WORD{{1,50}}\nWORD: /{words}/"

    async def body(engine):
        meanwhile = 0
        begun = asyncio.Event()

        async def watch():
            nonlocal meanwhile
            async for delta in engine.generate(tools.request(vocabulary.prompt(10), 1500)):
                meanwhile += len(delta.token_ids)
                begun.set()

        watching = asyncio.create_task(watch())
        await begun.wait()
        before = meanwhile
        result = await tools.collect(engine, tools.request(vocabulary.prompt(10), 4, grammar=large))
        told = meanwhile - before
        await watching
        return result, told

    result, told = run(body)
    assert result.token_ids
    # The four ids under the grammar take a step each; a core that waited for it would have told little more.
    assert told >= 8


def test_a_grammar_that_grows_too_complex_is_an_error(run, tools, vocabulary):
    """A limit that is hit while generating ends the sequence with an error, not with free text."""
    choices = " | ".join(f'"{i:05d}"' for i in range(20000))
    wanted = tools.request(vocabulary.prompt(10), 8, grammar=f"start: ({choices}){{1,50}}")
    with pytest.raises(InvalidGrammarError, match="too complex"):
        run(lambda engine: tools.collect(engine, wanted))


def test_constrained_and_free_sequences_share_batches(run, tools, vocabulary, spell):
    """A grammar masks its own sequence only."""

    async def body(engine):
        prompt = vocabulary.prompt(12)
        free = [tools.request(prompt, 10, cache_salt=f"f{i}") for i in range(4)]
        bound = [tools.request(prompt, 10, grammar="start: /[0-9]{10}/", sampling=HOT) for _ in range(4)]
        return await asyncio.gather(*(tools.collect(engine, one) for one in (*free, *bound)))

    results = run(body)
    assert all(spell(result.token_ids).isdigit() for result in results[4:])
    assert len({tuple(result.token_ids) for result in results[:4]}) == 1
