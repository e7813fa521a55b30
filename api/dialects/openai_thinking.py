"""Every spelling by which clients switch thinking on, off, bound it or hide it; contradictions are refused.

Gemma 4 thinks or does not: an effort is on or off. How the model is told is ``api.gemma4``'s.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.chat.request import Thinking
from api.dialects.schema import Fields, agree

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class TemplateKwargs(Fields):
    """Variables of the model family's chat template."""

    enable_thinking: bool | None = None
    preserve_thinking: bool | None = None


class ReasoningOptions(Fields):
    """The ``reasoning`` object of the Responses API and of routers."""

    effort: Effort | None = None
    enabled: bool | None = None
    max_tokens: int | None = Field(default=None, ge=0)
    exclude: bool | None = None


class ThinkingOptions(Fields):
    """The ``thinking`` object of Anthropic's form."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(default=None, ge=0)


class ThinkingFields(Fields):
    """The part of a request that is about thinking."""

    chat_template_kwargs: TemplateKwargs | None = None
    reasoning_effort: Effort | None = None
    reasoning: ReasoningOptions | None = None
    thinking: ThinkingOptions | None = None
    include_reasoning: bool | None = None
    thinking_token_budget: int | None = Field(default=None, ge=-1)
    thinking_budget_tokens: int | None = Field(default=None, ge=-1)
    reasoning_budget_tokens: int | None = Field(default=None, ge=-1)

    def to_thinking(self, nvext_budget: int | None) -> Thinking:
        """Translate; ``nvext_budget`` is the budget of the ``nvext`` object.

        Raises:
            api.errors.BadRequestError: when two fields contradict each other.
        """
        kwargs = self.chat_template_kwargs or TemplateKwargs()
        reasoning = self.reasoning or ReasoningOptions()
        enabled = agree(
            ("chat_template_kwargs.enable_thinking", kwargs.enable_thinking),
            ("reasoning_effort", _is_on(self.reasoning_effort)),
            ("reasoning.enabled", reasoning.enabled),
            ("reasoning.effort", _is_on(reasoning.effort)),
            ("thinking.type", None if self.thinking is None else self.thinking.type != "disabled"),
        )
        include = agree(
            ("include_reasoning", self.include_reasoning),
            ("reasoning.exclude", None if reasoning.exclude is None else not reasoning.exclude),
        )
        return Thinking(
            enabled=bool(enabled),
            budget=self._budget(reasoning, nvext_budget),
            include=include is not False,
            preserve=bool(kwargs.preserve_thinking),
        )

    def _budget(self, reasoning: ReasoningOptions, nvext_budget: int | None) -> int | None:
        """Return the one budget that is given; -1 is llama.cpp's way to say none."""
        budget = agree(
            ("thinking_token_budget", self.thinking_token_budget),
            ("thinking_budget_tokens", self.thinking_budget_tokens),
            ("reasoning_budget_tokens", self.reasoning_budget_tokens),
            ("reasoning.max_tokens", reasoning.max_tokens),
            ("thinking.budget_tokens", self.thinking.budget_tokens if self.thinking else None),
            ("nvext.max_thinking_tokens", nvext_budget),
        )
        return None if budget == -1 else budget


def _is_on(effort: Effort | None) -> bool | None:
    return None if effort is None else effort != "none"
