"""Tools and the choice among them, in OpenAI chat requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from api.chat.request import ToolChoice, ToolDefinition, ToolMode
from api.dialects.schema import Fields
from api.errors import BadRequestError

_NAME = r"^[A-Za-z0-9_.\-]{1,128}$"
"""Characters that stand in a call without quoting: OpenAI's, and the dot of namespaced tools."""


class FunctionInput(Fields):
    """A function that the model may call."""

    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    response: dict[str, Any] | None = None


class ToolInputDefinition(Fields):
    """A tool; only functions can be declared to Gemma 4."""

    type: Literal["function"]
    function: FunctionInput

    def to_definition(self) -> ToolDefinition:
        """Translate to the canonical definition."""
        function = self.function
        return ToolDefinition(
            function.name, function.description, function.parameters, bool(function.strict), function.response
        )


class FunctionName(Fields):
    """A function by name."""

    name: str


class NamedTool(Fields):
    """One tool by name."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Fields):
    """Some of the declared tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1)


class AllowedToolsChoice(Fields):
    """The object form of ``tool_choice`` that allows some tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _choice_form(value: object) -> str | None:
    if isinstance(value, str):
        return "mode"
    kind = value.get("type") if isinstance(value, dict) else None
    return {"function": "named", "allowed_tools": "allowed"}.get(kind) if isinstance(kind, str) else None


ToolChoiceField = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("mode")]
    | Annotated[NamedTool, Tag("named")]
    | Annotated[AllowedToolsChoice, Tag("allowed")],
    Discriminator(
        _choice_form,
        custom_error_type="tool_choice_type",
        custom_error_message="Input should be none, auto, required, a function by name, or allowed_tools",
    ),
]


def to_tools(inputs: list[ToolInputDefinition] | None) -> tuple[ToolDefinition, ...]:
    """Translate the declared tools.

    Raises:
        BadRequestError: when two have the same name.
    """
    seen: set[str] = set()
    for index, tool in enumerate(inputs or []):
        if tool.function.name in seen:
            raise BadRequestError(f"Two tools are called `{tool.function.name}`.", param=f"tools.{index}.function.name")
        seen.add(tool.function.name)
    return tuple(tool.to_definition() for tool in inputs or [])


def to_tool_choice(value: ToolChoiceField | None, tools: tuple[ToolDefinition, ...]) -> ToolChoice:
    """Translate the choice.

    Raises:
        BadRequestError: when it names a tool that is not declared, or needs tools and there are none.
    """
    if value is None:
        return ToolChoice()
    if isinstance(value, str):
        if value == "required" and not tools:
            raise BadRequestError("`tool_choice` is required, but no `tools` are given.", param="tool_choice")
        return ToolChoice(ToolMode(value))
    declared = {tool.name for tool in tools}
    if isinstance(value, NamedTool):
        _check_declared(value.function.name, declared, "tool_choice.function.name")
        return ToolChoice.named(value.function.name)
    allowed = value.allowed_tools
    for index, tool in enumerate(allowed.tools):
        _check_declared(tool.function.name, declared, f"tool_choice.allowed_tools.tools.{index}.function.name")
    names = tuple(dict.fromkeys(tool.function.name for tool in allowed.tools))
    return ToolChoice.allowed(names, required=allowed.mode == "required")


def _check_declared(name: str, declared: set[str], param: str) -> None:
    if name not in declared:
        raise BadRequestError(f"`{name[:200]}` is not among the declared `tools`.", param=param)
