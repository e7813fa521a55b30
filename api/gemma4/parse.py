"""What the model wrote, from token ids: thought, answer and tool calls, as events that grow with every id.

A state machine started from the prompt's known state. Markers are recognised by id, never by their spelling, and
everything that the model is known to get wrong ends as sensible events: nothing raises, nothing but markers and white
space beside calls is lost, and the cost of an id does not depend on what came before. An answer that never closes a
thought which the prompt has opened is a thought. What is inside a call is ``api.gemma4.call_reader``'s, stop texts
and white space are ``api.gemma4.event_sink``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from api.chat.request import ToolDefinition
from api.gemma4.call_reader import CallReader
from api.gemma4.detokenizer import Detokenizer
from api.gemma4.event_sink import EventSink
from api.gemma4.events import Event
from api.gemma4.prompt import OpenCall, PromptState
from api.gemma4.stop import StopTexts
from api.gemma4.tokenizer import Gemma4Tokenizer

_LABEL = "thought"
_LONGEST_ROLE = 16
_LONGEST_BLANK = 64


class Parser:
    """Parses one stream of ids. Feed it, then finish it; once ``stopped`` is true the answer's text has ended.

    ``reasoning_tokens`` counts the ids that belonged to thoughts.
    """

    def __init__(  # noqa: PLR0913 - the start of a stream has seven independent facets, each with its own default
        self,
        tokenizer: Gemma4Tokenizer,
        state: PromptState,
        *,
        new_call_id: Callable[[], str],
        tools: Sequence[ToolDefinition] = (),
        open_call: OpenCall | None = None,
        stop: StopTexts | Sequence[str] = (),
        tool_calls: bool = True,
    ) -> None:
        """Start where the prompt ends. Without ``tool_calls`` calls are plain text."""
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer)
        self._tool_calls = tool_calls
        self._call_heads = tuple(f"call:{tool.name}{{" for tool in tools) if tool_calls else ()
        self._label_may_follow = state is PromptState.NEW_TURN
        self._sink = EventSink(stop if isinstance(stop, StopTexts) else StopTexts(tuple(stop)))
        self._call = CallReader(self._sink, {tool.name: tool.parameters for tool in tools}, new_call_id)
        self._buffer: list[str] = []
        self._buffered = 0
        self.reasoning_tokens = 0
        self._handlers = self._marker_handlers()
        self._piece = tokenizer.piece
        self._content: Callable[[str], None] = self._sink.content
        self._on_text: Callable[[str], None] = self._content
        self._start(state, open_call)

    @property
    def stopped(self) -> bool:
        """Whether a stop text was found: the engine need not go on."""
        return self._sink.stopped

    @property
    def section(self) -> str:
        """What the last id belonged to: ``reasoning``, ``content`` or ``call``."""
        if self._sink.thinking:
            return "reasoning"
        return "call" if self._call.active else "content"

    def feed(self, ids: Iterable[int]) -> list[Event]:
        """Read more ids and return what they complete."""
        handlers, detokenize, sink = self._handlers, self._detokenizer.feed, self._sink
        for token_id in ids:
            handler = handlers.get(token_id)
            if handler is None:
                text = detokenize(token_id)
                if text:
                    self._on_text(text)
            else:
                self._flush_detokenizer()
                handler()
            if sink.thinking:
                self.reasoning_tokens += 1
        return sink.take()

    def plain_text(self, token_id: int) -> str | None:
        """Read an id if all it does is to add text to the answer, and return the text; else read nothing: None.

        It is the short way for nearly every id of a stream: what it returns is what ``feed`` would make one event of.
        """
        if self._on_text is not self._content or token_id in self._handlers or not self._sink.holds_nothing:
            return None
        piece = self._piece(token_id)
        if type(piece) is not str or self._detokenizer.is_pending or not piece or piece[-1].isspace():
            return None
        return piece

    def finish(self, *, cut: bool) -> list[Event]:
        """End the stream and return what was held back. ``cut``: the limit or the caller ended it, not the model."""
        self._flush_detokenizer()
        self._leave(cut=cut)
        self._sink.finish()
        return self._sink.take()

    def _flush_detokenizer(self) -> None:
        text = self._detokenizer.flush()
        if text:
            self._on_text(text)

    # Markers

    def _marker_handlers(self) -> dict[int, Callable[[], None]]:
        special = self._tokenizer.special
        handlers: dict[int, Callable[[], None]] = {
            special.channel_open: self._channel_open,
            special.channel_close: self._channel_close,
            special.call_open: self._call_open,
            special.call_close: self._call_close,
            special.quote: self._quote,
            special.turn_open: self._turn_open,
            special.turn_close: self._leave,
            special.eos: self._leave,
            special.response_open: self._leave,
        }
        for token_id in self._tokenizer.special_ids - handlers.keys():
            handlers[token_id] = self._stray(token_id)
        return handlers

    def _stray(self, token_id: int) -> Callable[[], None]:
        """Make the handler of a marker that has no place in an answer: literal in a string, else dropped."""

        def handle() -> None:
            self._is_literal(token_id)

        return handle

    def _is_literal(self, token_id: int) -> bool:
        """Take a marker as text if a delimited string is open; return whether it was taken."""
        return self._call.active and self._call.take_literal(self._tokenizer.name(token_id) or "")

    def _channel_open(self) -> None:
        if self._is_literal(self._tokenizer.special.channel_open):
            return
        self._leave()
        self._sink.begin_thought()
        self._hold(self._label_text)

    def _channel_close(self) -> None:
        if self._is_literal(self._tokenizer.special.channel_close) or not self._sink.thinking:
            return
        self.reasoning_tokens += 1
        self._release()
        self._begin_answer()

    def _call_open(self) -> None:
        if not self._tool_calls:
            return
        # Right after a close marker inside a string, this proves that the string's own end was left out.
        if not self._call.follows_close() and self._is_literal(self._tokenizer.special.call_open):
            return
        self._leave()
        self._sink.begin_answer()
        self._call.open()
        self._hold(self._call_text)

    def _call_close(self) -> None:
        if self._call.active:
            self._after_call(self._call.close(self._tokenizer.name(self._tokenizer.special.call_close) or ""))

    def _quote(self) -> None:
        if self._call.active:
            self._call.quote(self._tokenizer.name(self._tokenizer.special.call_close) or "")
        else:
            self._on_text('"')

    def _turn_open(self) -> None:
        """A turn's header inside an answer: the role is swallowed."""
        if not self._is_literal(self._tokenizer.special.turn_open):
            self._leave()
            self._hold(self._role_text)

    def _leave(self, *, cut: bool = False) -> None:
        """End what a marker, or the end of the stream, interrupts. Should ids follow, they are text."""
        if self._call.active:
            self._after_call(self._call.end(cut=cut))
        self._release()

    # Starts of sections, which are held until it is clear what they are

    def _hold(self, on_text: Callable[[str], None]) -> None:
        self._buffer.clear()
        self._buffered = 0
        self._on_text = on_text

    def _release(self) -> None:
        """Give up on what was held at a start: it is plain text of its section."""
        text = "".join(self._buffer)
        if self._sink.thinking:
            text = "" if text == _LABEL else text
            self._hold(self._sink.reasoning)
        else:
            self._hold(self._content)
        if text:
            self._on_text(text)

    def _begin_answer(self) -> None:
        self._sink.begin_answer()
        self._hold(self._start_text if self._call_heads else self._content)

    def _label_text(self, text: str) -> None:
        """Right after a thought opens: the label is the format's, however it is split."""
        self._buffer.append(text)
        label = "".join(self._buffer)
        if len(label) <= len(_LABEL):
            if _LABEL.startswith(label):
                return
        elif label.startswith(_LABEL) and not label[len(_LABEL)].islower():
            label = label[len(_LABEL) :].removeprefix("\n")
        self._hold(self._sink.reasoning)
        if label:
            self._sink.reasoning(label)

    def _start_text(self, text: str) -> None:
        """At the start of an answer: a call whose marker was left out, or a thought's label without its opener."""
        self._buffer.append(text)
        start = "".join(self._buffer)
        bare = start.lstrip()
        if self._label_may_follow and start.startswith(f"{_LABEL}\n"):
            self._sink.begin_thought()
            self._hold(self._sink.reasoning)
            self._on_text(start[len(_LABEL) + 1 :])
            return
        for head in self._call_heads:
            if bare.startswith(head):
                self._hold(self._call_text)
                self._call.open_named(head[len("call:") : -1])
                self._call_text(bare[len(head) :])
                return
        candidates = (*self._call_heads, f"{_LABEL}\n") if self._label_may_follow else self._call_heads
        if len(start) > len(bare) + _LONGEST_BLANK or not any(head.startswith(bare) for head in candidates):
            self._release()

    def _role_text(self, text: str) -> None:
        self._buffer.append(text)
        self._buffered += len(text)
        _, newline, rest = "".join(self._buffer).partition("\n")
        if newline:
            self._begin_answer()
            if rest:
                self._on_text(rest)
        elif self._buffered > _LONGEST_ROLE:
            self._release()

    # Calls

    def _call_text(self, text: str) -> None:
        """Text inside a call; what comes back is the answer's."""
        self._after_call(self._call.text(text))

    def _after_call(self, rest: str) -> None:
        if not self._call.active:
            self._begin_answer()
            if rest:
                self._on_text(rest)

    # The prompt's state

    def _start(self, state: PromptState, open_call: OpenCall | None) -> None:
        """Take up the prompt's state; what the prompt holds of an open call is read but not repeated."""
        if state is PromptState.OPEN_THOUGHT:
            self._sink.begin_thought()
            self._hold(self._sink.reasoning)
        elif open_call is not None:
            self._hold(self._call_text)
            self._call.resume(open_call, self._read_open_call)
        elif self._label_may_follow:
            self._hold(self._start_text)
        elif state is PromptState.CLOSED_THOUGHT:
            self._begin_answer()

    def _read_open_call(self, open_call: OpenCall) -> None:
        for token_id in open_call.ids:
            if token_id == self._tokenizer.special.quote:
                self._flush_detokenizer()
                self._quote()
            else:
                self._on_text(self._detokenizer.feed(token_id))
