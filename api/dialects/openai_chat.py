"""OpenAI's chat completion request, with the extensions of vLLM, llama.cpp, SGLang and NIM, to the canonical request.

Every field either works or is refused by name. Encoding of answers is ``api.dialects.openai_answer``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from pydantic import Field

from api.chat.request import ChatRequest, ImagePart, Message
from api.dialects.openai_content import SoftTokens
from api.dialects.openai_format import FormatFields
from api.dialects.openai_messages import MessageInput, named, to_messages
from api.dialects.openai_sampling import LimitFields, LogprobFields, NvExt, SamplingFields
from api.dialects.openai_thinking import ThinkingFields
from api.dialects.openai_tools import ToolChoiceField, ToolInputDefinition, to_tool_choice, to_tools
from api.dialects.schema import Fields, agree, parse_fields

MAX_CHOICES: Final = 128
MAX_MESSAGES: Final = 10_000

WITHOUT_EFFECT: Final = (
    *("user", "safety_identifier", "prompt_cache_key", "metadata", "messages.*.name"),
    *("skip_special_tokens", "spaces_between_special_tokens"),
)
"""Fields that are taken with any value and change nothing."""

UNSUPPORTED: Final[Mapping[str, str]] = {
    "audio": "Gemma 4 does not produce audio",
    "functions": "use tools",
    "function_call": "use tool_choice",
    "prediction": "predicted outputs are not available",
    "web_search_options": "this server does not search the web; declare a tool",
    "moderation": "this server does not moderate",
    "prompt_logprobs": "only the probabilities of generated tokens are available",
    "logprob_token_ids": "use top_logprobs",
    "truncate_prompt_tokens": "a prompt is never cut silently; shorten the messages",
    "media_io_kwargs": "choose the size of pictures with detail or max_soft_tokens",
    "structural_tag": "declare a tool with strict",
    "chat_template": "prompts are rendered in Gemma 4's own format only",
    "length_penalty": "beam search is not available",
}


class StreamOptions(Fields):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None
    continuous_usage_stats: Literal[False] | None = None


class ImagesKwargs(Fields):
    """The image processor's own options, as transformers nests them."""

    max_soft_tokens: SoftTokens | None = None


class ProcessorKwargs(Fields):
    """vLLM's name for the token budget of every picture."""

    max_soft_tokens: SoftTokens | None = None
    images_kwargs: ImagesKwargs | None = None

    def soft_tokens(self) -> int | None:
        """Return the budget, wherever it stands.

        Raises:
            BadRequestError: when it stands at both places and differs.
        """
        nested = self.images_kwargs.max_soft_tokens if self.images_kwargs else None
        return agree(
            ("mm_processor_kwargs.max_soft_tokens", self.max_soft_tokens),
            ("mm_processor_kwargs.images_kwargs.max_soft_tokens", nested),
        )


class NeutralFields(Fields):
    """Fields that cannot change an answer: labels of the caller, and switches that stand here as they are set."""

    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None
    best_of: Literal[1] | None = None
    use_beam_search: Literal[False] | None = None
    echo: Literal[False] | None = None
    skip_special_tokens: bool | None = None
    """Answers are parsed from token ids, so no special token is ever in their text, whatever this says."""
    spaces_between_special_tokens: bool | None = None
    separate_reasoning: Literal[True] | None = None
    stream_reasoning: Literal[True] | None = None


class ChatCompletionRequest(NeutralFields, ThinkingFields, FormatFields, SamplingFields, LimitFields, LogprobFields):
    """The body of ``POST /v1/chat/completions``."""

    model: str | None = None
    messages: list[MessageInput] = Field(min_length=1, max_length=MAX_MESSAGES)
    tools: list[ToolInputDefinition] | None = None
    tool_choice: ToolChoiceField | None = None
    parallel_tool_calls: bool | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    mm_processor_kwargs: ProcessorKwargs | None = None
    nvext: NvExt | None = None
    priority: int | None = Field(default=None, ge=-(2**31), lt=2**31)
    cache_salt: str | None = Field(default=None, min_length=1, max_length=128)
    return_token_ids: bool | None = None


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A parsed request and how its answer is to be sent.

    ``ignored`` lists fields without effect: unknown ones on a lenient server, and names of participants.
    """

    request: ChatRequest
    stream: bool
    include_usage: bool
    ignored: tuple[str, ...] = ()


def parse_chat_request(body: dict[str, Any], *, served_names: Sequence[str], lenient: bool) -> ChatCall:
    """Validate and translate a decoded body; whether the model exists is for the caller to check.

    Raises:
        api.errors.BadRequestError: naming the field at fault.
        api.chat.errors.ChatError: when earlier tool calls cannot be read.
    """
    fields, ignored = parse_fields(ChatCompletionRequest, body, lenient=lenient, unsupported=UNSUPPORTED)
    options = fields.stream_options or StreamOptions()
    return ChatCall(
        request=_to_request(fields, served_names[0]),
        stream=bool(fields.stream),
        include_usage=bool(options.include_usage),
        ignored=(*ignored, *named(fields.messages)),
    )


def _to_request(fields: ChatCompletionRequest, default_model: str) -> ChatRequest:
    nvext = fields.nvext or NvExt()
    tools = to_tools(fields.tools)
    continued = bool(fields.continue_final_message)
    messages = to_messages(fields.messages, continued=continued)
    budget = fields.mm_processor_kwargs.soft_tokens() if fields.mm_processor_kwargs else None
    if budget is not None:
        messages = _with_budget(messages, budget)
    return ChatRequest(
        model=default_model if fields.model is None else fields.model,
        messages=messages,
        tools=tools,
        tool_choice=to_tool_choice(fields.tool_choice, tools),
        parallel_tool_calls=fields.parallel_tool_calls is not False,
        response_format=fields.to_format(nvext),
        thinking=fields.to_thinking(nvext.max_thinking_tokens),
        sampling=fields.to_sampling(nvext),
        limits=fields.to_limits(nvext),
        logprobs=fields.to_logprobs(),
        token_ids=bool(fields.return_token_ids),
        n=fields.n or 1,
        add_generation_prompt=fields.add_generation_prompt is not False,
        continue_final_message=continued,
        priority=fields.priority or 0,
        cache_salt=fields.cache_salt or "",
    )


def _with_budget(messages: tuple[Message, ...], tokens: int) -> tuple[Message, ...]:
    """Give every picture without a budget of its own this one."""
    return tuple(
        replace(
            message,
            content=tuple(
                replace(part, max_soft_tokens=tokens)
                if isinstance(part, ImagePart) and part.max_soft_tokens is None
                else part
                for part in message.content
            ),
        )
        if isinstance(message.content, tuple)
        else message
        for message in messages
    )
