"""The canonical chat request: one frozen, dialect-free form that every dialect is translated to.

Dialects (``api.dialects``) fill it in, ``api.chat.roles`` checks the order of messages, ``api.media`` fetches pictures,
and ``api.gemma4`` makes a prompt and a plan of it. None means "not given" wherever a default belongs to the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from engine.core import Image

JsonObject = Mapping[str, object]
"""A decoded JSON object: values are None, bool, int, float, str, list or dict."""


class Role(StrEnum):
    """Who speaks. A dialect's ``developer`` is ``SYSTEM``: Gemma 4 has one role for both."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of plain text. Nothing in it is ever a special token."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where a picture comes from, as the caller wrote it: a URL, bare base64, or a path (``api.media.source``)."""

    url: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture that is not fetched yet. ``max_soft_tokens`` is its token budget; None takes the model's default.

    ``param`` is the dotted path of the part in the caller's request, for errors.
    """

    source: ImageSource
    max_soft_tokens: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """A picture that was fetched, checked, decoded and sized: what an ``ImagePart`` becomes before rendering."""

    image: Image

    @property
    def soft_tokens(self) -> int:
        """Number of image positions that it takes in the prompt, without the two markers around them."""
        return self.image.soft_tokens


class MediaKind(StrEnum):
    """Media that Gemma 4 has a token for besides pictures."""

    AUDIO = "audio"
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class MediaPart:
    """A place for audio or video: renders as its one placeholder token, which no engine of this server can fill yet."""

    kind: MediaKind


ContentPart = TextPart | ImagePart | ResolvedImage | MediaPart
Content = str | tuple[ContentPart, ...]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that the assistant made. ``id`` is the caller's; ``arguments`` is a decoded JSON object.

    ``open_arguments`` holds the JSON text so far of a call that was cut and is to be continued; then ``arguments`` is
    ignored. It is allowed only on the last call of a final message with ``continue_final_message``.
    """

    id: str
    name: str
    arguments: JsonObject = field(default_factory=dict)
    open_arguments: str | None = None


@dataclass(frozen=True, slots=True)
class ToolResponse:
    """A result kept inside the assistant's message (the model family's own older form)."""

    name: str
    response: JsonObject


@dataclass(frozen=True, slots=True)
class SystemMessage:
    """Instructions: text, and pictures that they speak of."""

    content: Content


@dataclass(frozen=True, slots=True)
class UserMessage:
    """What the user said or showed."""

    content: Content


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """An earlier answer: its thought, text and calls, each of which may be missing."""

    content: Content | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_responses: tuple[ToolResponse, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolMessage:
    """The result of one call: text, parts, a JSON object, or nothing. ``name`` is used when no call has the id."""

    content: Content | JsonObject | None
    tool_call_id: str | None = None
    name: str | None = None


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A function that the model may call. ``parameters`` and ``response`` are JSON Schemas of objects.

    ``strict`` asks for arguments that obey the schema by construction.
    """

    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool = False
    response: JsonObject | None = None


class ToolMode(StrEnum):
    """Whether the model may, must or must not call."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Which tools may be called. ``names`` None means all that are declared; a named choice has one name."""

    mode: ToolMode = ToolMode.AUTO
    names: tuple[str, ...] | None = None

    @classmethod
    def named(cls, name: str) -> ToolChoice:
        """Make the choice that forces one function."""
        return cls(ToolMode.REQUIRED, (name,))

    @classmethod
    def allowed(cls, names: tuple[str, ...], *, required: bool = False) -> ToolChoice:
        """Make the choice that limits calls to some of the declared functions."""
        return cls(ToolMode.REQUIRED if required else ToolMode.AUTO, names)


@dataclass(frozen=True, slots=True)
class TextFormat:
    """Free text."""


@dataclass(frozen=True, slots=True)
class JsonObjectFormat:
    """Any JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchemaFormat:
    """JSON that validates against ``schema``. With ``strict`` a schema that cannot be enforced in full is an error."""

    schema: JsonObject | bool
    strict: bool = True
    param: str = "response_format.json_schema.schema"


@dataclass(frozen=True, slots=True)
class RegexFormat:
    """Text that matches a regular expression from start to end."""

    pattern: str
    param: str = "structured_outputs.regex"


@dataclass(frozen=True, slots=True)
class ChoiceFormat:
    """Exactly one of some texts."""

    choices: tuple[str, ...]
    param: str = "structured_outputs.choice"


@dataclass(frozen=True, slots=True)
class GrammarFormat:
    """Text of a caller's own grammar in llguidance's Lark form."""

    grammar: str
    param: str = "structured_outputs.grammar"


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat | ChoiceFormat | GrammarFormat


@dataclass(frozen=True, slots=True)
class Thinking:
    """The thought channel. ``budget`` bounds its tokens (None: no bound, 0: an empty thought).

    ``include`` shows the thought to the caller. ``preserve`` keeps the thoughts of earlier turns beside their calls.
    """

    enabled: bool = False
    budget: int | None = None
    include: bool = True
    preserve: bool = False


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """What the caller said about sampling; None takes the model's default (``api.gemma4.plan``).

    ``bad_words`` stand nowhere in thought and answer; of ``allowed_token_ids``, if given, all drawn ids are.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: tuple[str, ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """Where an answer ends. ``max_tokens`` None takes what the context leaves.

    ``stop`` texts and ``stop_token_ids`` end it, and are part of it only with ``include_stop``; ``min_tokens`` forbids
    an end before so many tokens; ``ignore_eos`` never ends but by length or ``stop``.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    include_stop: bool = False


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request to answer a conversation, ``n`` times.

    ``logprobs`` None means none, 0 the chosen token only, k the k most likely too; ``token_ids`` tells all ids.
    ``add_generation_prompt`` and ``continue_final_message`` exclude each other.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    response_format: ResponseFormat = field(default_factory=TextFormat)
    thinking: Thinking = field(default_factory=Thinking)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    limits: OutputLimits = field(default_factory=OutputLimits)
    logprobs: int | None = None
    token_ids: bool = False
    n: int = 1
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    priority: int = 0
    cache_salt: str = ""
