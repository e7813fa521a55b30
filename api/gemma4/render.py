"""Messages to a prompt, straight to token ids, as Gemma 4 26B-A4B and 31B were trained.

The rules are those of the family's template of 9 July 2026. It is departed from where it loses something: text beside
tool calls stands before them; every prompt that ends a turn gets the header of the next; and with thinking off
earlier turns carry the empty thought that they were generated after, so that a follow-up's prompt starts with the ids
of the previous prompt and its answer. The order of roles is ``api.chat.roles``' to check; this module renders any
order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.chat.arguments import check_json
from api.chat.request import (
    AssistantMessage,
    ChatRequest,
    Content,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from api.gemma4.continuation import open_call_segments, split_open_markup, split_shown, strip_thoughts
from api.gemma4.declare import declaration_ids
from api.gemma4.native import NativeWriter
from api.gemma4.prompt import OpenCall, Prompt, PromptBuilder, PromptState
from api.gemma4.tokenizer import Gemma4Tokenizer


def render(request: ChatRequest, tokenizer: Gemma4Tokenizer, context_tokens: int | None = None) -> Prompt:
    """Render a request whose pictures are resolved (others become a lone placeholder).

    Raises:
        api.chat.errors.ChatError: when a part of it cannot be written, or is far too long for ``context_tokens``.
    """
    return _Renderer(request, tokenizer, context_tokens).render()


@dataclass(slots=True)
class _Turn:
    """What an assistant message leaves behind: whether its turn is still open, and after what."""

    is_open: bool = False
    awaits_result: bool = False


class _Renderer:
    """One rendering. ``_messages`` excludes a leading system message, which belongs to the system block."""

    def __init__(self, request: ChatRequest, tokenizer: Gemma4Tokenizer, context_tokens: int | None) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._special = tokenizer.special
        self._builder = PromptBuilder(tokenizer, context_tokens)
        messages = request.messages
        self._system = messages[0] if messages and isinstance(messages[0], SystemMessage) else None
        self._messages: Sequence[Message] = messages[1:] if self._system else messages
        self._offset = len(messages) - len(self._messages)
        self._last_user = max(
            (index for index, message in enumerate(self._messages) if isinstance(message, UserMessage)), default=-1
        )
        self._turn = _Turn()

    def render(self) -> Prompt:
        """Write every part in order."""
        self._builder.add(self._special.bos)
        self._write_system_block(self._request.tools)
        previous: Message | None = None
        for index, message in enumerate(self._messages):
            if isinstance(message, ToolMessage):
                continue
            if isinstance(message, AssistantMessage):
                continues = isinstance(previous, AssistantMessage)
                if self._request.continue_final_message and index == len(self._messages) - 1:
                    return self._write_continued(index, message, continues=continues)
                self._write_assistant(index, message, continues=continues)
            else:
                self._open_turn("system" if isinstance(message, SystemMessage) else "user")
                self._write_content(message.content)
                self._close_turn()
                self._turn = _Turn()
            previous = message
        return self._builder.build(self._write_generation_header())

    def _write_system_block(self, tools: Sequence[ToolDefinition]) -> None:
        """Write the system turn, when there is anything to say in it."""
        thinking = self._request.thinking.enabled
        if not (thinking or tools or self._system):
            return
        self._open_turn("system")
        if thinking:
            self._builder.add(self._special.think, "\n")
        if self._system:
            content = self._system.content
            if isinstance(content, str):
                self._builder.add(content.strip())
            else:
                for part in content:
                    if isinstance(part, TextPart):
                        self._builder.add(f"{part.text.strip()} ")
                    else:
                        self._builder.add_media(part)
        for ids in declaration_ids(tools, self._tokenizer, self._context_tokens):
            self._builder.add_fragment(ids)
        self._close_turn()

    def _write_assistant(self, index: int, message: AssistantMessage, *, continues: bool) -> None:
        """Write a finished assistant message with the results of its calls."""
        if not continues:
            self._open_turn("model")
        self._write_thought(index, message, continues=continues)
        text_first = bool(message.tool_calls) and not message.tool_responses
        if text_first:
            self._write_answer(message.content)
        self._write_calls(index, message.tool_calls)
        has_results = self._write_results(index, message)
        has_text = not text_first and self._write_answer(message.content)
        following = self._after_results(index)
        if message.tool_calls and not has_results:
            self._builder.add(self._special.response_open)
            self._turn = _Turn(is_open=True, awaits_result=True)
        elif isinstance(following, AssistantMessage) or (has_results and not has_text and following is None):
            self._turn = _Turn(is_open=True)
        else:
            self._close_turn()
            self._turn = _Turn()

    def _write_thought(self, index: int, message: AssistantMessage, *, continues: bool) -> None:
        """Write the thought where the model may see it; else, with thinking off, the empty one before the answer."""
        visible = index > self._last_user or (self._request.thinking.preserve and message.tool_calls)
        if message.reasoning and visible:
            self._builder.add(
                self._special.channel_open, f"thought\n{message.reasoning}\n", self._special.channel_close
            )
        elif not continues and not self._request.thinking.enabled:
            self._write_empty_thought()

    def _write_continued(self, index: int, message: AssistantMessage, *, continues: bool) -> Prompt:
        """Write the final assistant message up to where the model is to go on."""
        if not continues:
            self._open_turn("model")
        shown, message = split_shown(message)
        text, thought, call_text = split_open_markup(message) if message.content or not shown else ("", None, None)
        if thought is not None and not text and not shown:
            self._builder.add(self._special.channel_open, f"thought\n{thought}")
            return self._builder.build(PromptState.OPEN_THOUGHT)
        self._write_thought(index, message, continues=continues)
        begun = self._builder.position
        self._write_answer(shown)
        self._builder.add(strip_thoughts(text).lstrip())
        if thought is not None:
            self._builder.add(self._special.channel_open, f"thought\n{thought}")
            return self._builder.build(PromptState.OPEN_THOUGHT, begun_at=begun)
        finished = [call for call in message.tool_calls if call.open_arguments is None]
        self._write_calls(index, finished)
        open_call = self._write_open_call(message, call_text)
        if open_call or finished or shown or text.strip() or continues or message.reasoning:
            state = PromptState.CONTINUED
        else:
            state = PromptState.NEW_TURN if self._request.thinking.enabled else PromptState.CLOSED_THOUGHT
        return self._builder.build(state, open_call, begun_at=begun)

    def _write_open_call(self, message: AssistantMessage, call_text: str | None) -> OpenCall | None:
        """Write the call that was cut, from decoded JSON so far or from spelled markup."""
        last = message.tool_calls[-1] if message.tool_calls else None
        param = (
            f"messages.{len(self._request.messages) - 1}.tool_calls.{len(message.tool_calls) - 1}.function.arguments"
        )
        opened = open_call_segments(last, call_text, self._tokenizer, param=param)
        if opened is None:
            return None
        segments, json_length = opened
        self._builder.add(self._special.call_open)
        self._builder.extend(segments)
        scratch = PromptBuilder(self._tokenizer)
        scratch.extend(segments)
        ids = scratch.build(PromptState.CONTINUED).ids
        return OpenCall(ids, json_length, last.id if last and last.open_arguments is not None else None)

    def _after_results(self, index: int) -> Message | None:
        """Return the next message that is not a result."""
        for position in range(index + 1, len(self._messages)):
            if not isinstance(self._messages[position], ToolMessage):
                return self._messages[position]
        return None

    def _write_calls(self, index: int, calls: Sequence[ToolCall]) -> None:
        for number, call in enumerate(calls):
            check_json(call.arguments, param=f"messages.{index + self._offset}.tool_calls.{number}.function.arguments")
            writer = NativeWriter(self._special.quote)
            writer.text("call:", call.name, "{")
            writer.members(call.arguments)
            writer.text("}")
            self._builder.add(self._special.call_open)
            self._builder.extend(writer.out)
            self._builder.add(self._special.call_close)

    def _write_results(self, index: int, message: AssistantMessage) -> bool:
        """Write the results that follow a message, in their own order; return whether there were any."""
        if message.tool_responses:
            for response in message.tool_responses:
                self._write_result(response.name or "unknown", response.response, f"messages.{index + self._offset}")
            return True
        if not message.tool_calls:
            return False
        names = {call.id: call.name for call in message.tool_calls}
        found = False
        for position in range(index + 1, len(self._messages)):
            result = self._messages[position]
            if not isinstance(result, ToolMessage):
                break
            found = True
            name = names.get(result.tool_call_id or "") or result.name or "unknown"
            self._write_tool_message(name, result, f"messages.{position + self._offset}.content")
        return found

    def _write_tool_message(self, name: str, result: ToolMessage, param: str) -> None:
        """Write one result; pictures stand after it."""
        content = result.content
        if not isinstance(content, tuple):
            self._write_result(name, content, param)
            return
        self._write_result(name, "".join(part.text for part in content if isinstance(part, TextPart)), param)
        for part in content:
            if not isinstance(part, TextPart):
                self._builder.add_media(part)

    def _write_result(self, name: str, value: object, param: str) -> None:
        check_json(value, param=param)
        writer = NativeWriter(self._special.quote)
        writer.text("response:", name, "{")
        if isinstance(value, Mapping):
            writer.members(value)
        else:
            writer.text("value:")
            writer.value(value)
        writer.text("}")
        self._builder.add(self._special.response_open)
        self._builder.extend(writer.out)
        self._builder.add(self._special.response_close)

    def _write_answer(self, content: Content | None) -> bool:
        """Write an earlier answer without its thoughts; return whether anything was left."""
        if content is None:
            return False
        if isinstance(content, str):
            text = strip_thoughts(content).strip()
            self._builder.add(text)
            return bool(text)
        written = False
        for part in content:
            if isinstance(part, TextPart):
                text = strip_thoughts(part.text).strip()
                self._builder.add(text)
                written = written or bool(text)
            else:
                self._builder.add_media(part)
                written = True
        return written

    def _write_content(self, content: Content) -> None:
        """Write a user's or later system message's content: every text trimmed on its own, joined with nothing."""
        if isinstance(content, str):
            self._builder.add(content.strip())
            return
        for part in content:
            if isinstance(part, TextPart):
                self._builder.add(part.text.strip())
            else:
                self._builder.add_media(part)

    def _write_generation_header(self) -> PromptState:
        """Write what invites the model to speak, and tell the state that it is left in."""
        if not self._request.add_generation_prompt or self._turn.awaits_result:
            return PromptState.CONTINUED if self._turn.is_open else PromptState.NEW_TURN
        if not self._turn.is_open:
            self._open_turn("model")
            if self._request.thinking.enabled:
                return PromptState.NEW_TURN
            self._write_empty_thought()
            return PromptState.CLOSED_THOUGHT
        if self._request.thinking.enabled:
            self._builder.add(self._special.channel_open, "thought\n")
            return PromptState.OPEN_THOUGHT
        return PromptState.CONTINUED

    def _write_empty_thought(self) -> None:
        self._builder.add(self._special.channel_open, "thought\n", self._special.channel_close)

    def _open_turn(self, role: str) -> None:
        self._builder.add(self._special.turn_open, f"{role}\n")

    def _close_turn(self) -> None:
        self._builder.add(self._special.turn_close, "\n")
