"""Messages of OpenAI chat requests, and their translation. The order of roles is ``api.chat.roles``' to check."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from api.chat.arguments import check_json, parse_arguments
from api.chat.request import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from api.dialects.openai_content import ContentField, ImagesField, Part, add_images, to_content
from api.dialects.schema import Fields, agree
from api.errors import BadRequestError

Name = Annotated[str, Field(max_length=256)]
"""A participant's name. Gemma 4's format has no place for it: it is taken, told to be without effect, and left out."""


class SystemInput(Fields):
    """Instructions of the application."""

    role: Literal["system", "developer"]
    name: Name | None = None
    content: ContentField
    images: ImagesField | None = None

    def to_message(self, param: str) -> Message:
        """Translate to the canonical message; ``param`` is this message's path."""
        content = to_content(self.content, f"{param}.content")
        return SystemMessage(add_images(content, self.images, param))


class UserInput(Fields):
    """What the user said or showed."""

    role: Literal["user"]
    name: Name | None = None
    content: ContentField
    images: ImagesField | None = None

    def to_message(self, param: str) -> Message:
        """Translate to the canonical message; ``param`` is this message's path."""
        content = to_content(self.content, f"{param}.content")
        return UserMessage(add_images(content, self.images, param))


class FunctionCallInput(Fields):
    """Name and arguments of an earlier call; the arguments are JSON text, or already an object."""

    name: str = Field(min_length=1)
    arguments: Annotated[
        Annotated[str, Tag("text")] | Annotated[dict[str, Any], Tag("object")] | Annotated[None, Tag("none")],
        Discriminator(
            lambda value: (
                "text"
                if isinstance(value, str)
                else "object"
                if isinstance(value, dict)
                else "none"
                if value is None
                else None
            ),
            custom_error_type="call_arguments_type",
            custom_error_message="Input should be a string of JSON",
        ),
    ] = None


class ToolCallInput(Fields):
    """An earlier call of the assistant. ``index`` is what clients keep from streamed deltas."""

    id: str = Field(min_length=1)
    type: Literal["function"] = "function"
    function: FunctionCallInput
    index: int | None = None

    def to_call(self, param: str, *, is_open: bool) -> ToolCall:
        """Translate to the canonical call. With ``is_open`` the arguments may be cut and are kept as text."""
        path = f"{param}.function.arguments"
        arguments = self.function.arguments
        if isinstance(arguments, dict):
            check_json(arguments, param=path)
            return ToolCall(self.id, self.function.name, arguments)
        if is_open:
            return ToolCall(self.id, self.function.name, open_arguments=arguments or "")
        return ToolCall(self.id, self.function.name, parse_arguments(arguments, param=path))


class AssistantInput(Fields):
    """An earlier answer, as this server or another one returned it."""

    role: Literal["assistant"]
    name: Name | None = None
    content: ContentField | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallInput] | None = None
    refusal: str | None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = Field(default=None, max_length=0)
    images: ImagesField | None = None

    def to_message(self, param: str, *, is_open: bool = False) -> Message:
        """Translate to the canonical message. With ``is_open`` its last call may be unfinished."""
        calls = self.tool_calls or []
        content: str | list[Part] | None = self.content if self.content is not None else self.refusal
        return AssistantMessage(
            content=None
            if content is None and not self.images
            else add_images(to_content(content or "", f"{param}.content"), self.images, param),
            reasoning=agree(
                (f"{param}.reasoning", self.reasoning), (f"{param}.reasoning_content", self.reasoning_content)
            ),
            tool_calls=tuple(
                call.to_call(f"{param}.tool_calls.{index}", is_open=is_open and index == len(calls) - 1)
                for index, call in enumerate(calls)
            ),
        )


def _result_form(value: object) -> str | None:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "object"
    return "content" if isinstance(value, str | list) else None


class ToolInput(Fields):
    """The result of one call."""

    role: Literal["tool"]
    content: Annotated[
        Annotated[ContentField, Tag("content")]
        | Annotated[dict[str, Any], Tag("object")]
        | Annotated[None, Tag("none")],
        Discriminator(
            _result_form,
            custom_error_type="content_type",
            custom_error_message="Input should be a string, a list of content parts, or an object",
        ),
    ]
    tool_call_id: str | None = None
    name: str | None = None
    images: ImagesField | None = None

    def to_message(self, param: str) -> Message:
        """Translate to the canonical message; ``param`` is this message's path.

        Raises:
            BadRequestError: when ``images`` stand beside an object, which has no place for them.
        """
        content = self.content
        if isinstance(content, dict):
            if self.images:
                raise BadRequestError("A result that is an object takes no `images`.", param=f"{param}.images")
            check_json(content, param=f"{param}.content")
            return ToolMessage(content, self.tool_call_id, self.name)
        if content is None and not self.images:
            return ToolMessage(None, self.tool_call_id, self.name)
        parts = add_images(to_content(content or "", f"{param}.content"), self.images, param)
        return ToolMessage(parts, self.tool_call_id, self.name)


MessageInput = Annotated[SystemInput | UserInput | AssistantInput | ToolInput, Field(discriminator="role")]


def to_messages(inputs: list[MessageInput], *, continued: bool) -> tuple[Message, ...]:
    """Translate all messages. ``continued`` says that the last one is to be gone on with."""
    last = len(inputs) - 1
    return tuple(
        message.to_message(f"messages.{index}", is_open=continued and index == last)
        if isinstance(message, AssistantInput)
        else message.to_message(f"messages.{index}")
        for index, message in enumerate(inputs)
    )


def named(inputs: list[MessageInput]) -> tuple[str, ...]:
    """Return the paths of the names of participants, which are without effect."""
    return tuple(
        f"messages.{index}.name"
        for index, message in enumerate(inputs)
        if not isinstance(message, ToolInput) and message.name is not None
    )
