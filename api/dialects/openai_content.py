"""Content of OpenAI chat messages: text, or parts of text and pictures in every spelling that clients use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from api.chat.request import Content, ContentPart, ImagePart, ImageSource, TextPart
from api.dialects.schema import Fields
from api.errors import BadRequestError
from api.media.resolver import LOSSLESS
from api.media.size import DETAIL_BUDGETS

Detail = Literal["auto", "low", "high", "original"]
SoftTokens = Literal[70, 140, 280, 560, 1120]


class TextContent(Fields):
    """Plain text."""

    type: Literal["text", "input_text", "output_text"]
    text: str


class RefusalContent(Fields):
    """A refusal that an assistant message carries; read as text."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(Fields):
    """The object form of ``image_url``."""

    url: str = Field(min_length=1)
    detail: Detail | None = None
    max_soft_tokens: SoftTokens | None = None


def _string_or_object(value: object) -> str | None:
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict | Fields) else None


ImageUrlValue = Annotated[
    Annotated[str, Tag("string"), Field(min_length=1)] | Annotated[ImageUrl, Tag("object")],
    Discriminator(
        _string_or_object,
        custom_error_type="image_url_type",
        custom_error_message="Input should be a URL or an object with a URL",
    ),
]


class ImageUrlContent(Fields):
    """A picture by URL: chat completions' ``image_url`` or the Responses API's ``input_image``."""

    type: Literal["image_url", "input_image"]
    image_url: ImageUrlValue
    detail: Detail | None = None
    max_soft_tokens: SoftTokens | None = None

    def to_part(self, param: str) -> ImagePart:
        """Translate to the canonical part."""
        if isinstance(self.image_url, str):
            return _image_part(self.image_url, self.detail, self.max_soft_tokens, param)
        return _image_part(
            self.image_url.url,
            self.image_url.detail or self.detail,
            self.image_url.max_soft_tokens or self.max_soft_tokens,
            param,
        )


class ImageContent(Fields):
    """A picture in the form of other engines' clients: exactly one of a URL and bare base64."""

    type: Literal["image"]
    image: str | None = None
    url: str | None = None
    base64: str | None = None
    detail: Detail | None = None
    max_soft_tokens: SoftTokens | None = None

    def to_part(self, param: str) -> ImagePart:
        """Translate to the canonical part.

        Raises:
            BadRequestError: when not exactly one source is given.
        """
        sources = [source for source in (self.image, self.url, self.base64) if source]
        if len(sources) != 1:
            raise BadRequestError("An image part needs exactly one of `image`, `url` and `base64`.", param=param)
        return _image_part(sources[0], self.detail, self.max_soft_tokens, param)


Part = Annotated[TextContent | RefusalContent | ImageUrlContent | ImageContent, Field(discriminator="type")]


def _content_form(value: object) -> str | None:
    if isinstance(value, str):
        return "text"
    return "parts" if isinstance(value, list) else None


ImagesField = list[Annotated[str, Field(min_length=1)]]
"""Ollama's pictures of a message: bare base64, or whatever else an image part may be."""

ContentField = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[Part], Tag("parts")],
    Discriminator(
        _content_form,
        custom_error_type="content_type",
        custom_error_message="Input should be a string or a list of content parts",
    ),
]


def to_content(value: str | list[Part], param: str) -> Content:
    """Translate the content of one message; ``param`` is its path."""
    if isinstance(value, str):
        return value
    return tuple(_to_part(part, f"{param}.{index}") for index, part in enumerate(value))


def add_images(content: Content, images: list[str] | None, param: str) -> Content:
    """Put a message's ``images`` before its content, as Ollama does; ``param`` is the message's path."""
    if not images:
        return content
    parts = tuple(
        ImagePart(ImageSource(source), param=f"{param}.images.{index}") for index, source in enumerate(images)
    )
    if isinstance(content, str):
        return (*parts, TextPart(content)) if content else parts
    return (*parts, *content)


def _to_part(part: Part, param: str) -> ContentPart:
    if isinstance(part, TextContent):
        return TextPart(part.text)
    if isinstance(part, RefusalContent):
        return TextPart(part.refusal)
    return part.to_part(param)


def _image_part(url: str, detail: Detail | None, max_soft_tokens: int | None, param: str) -> ImagePart:
    if max_soft_tokens is not None and detail not in {None, "auto"}:
        raise BadRequestError("Give either `detail` or `max_soft_tokens`, not both.", param=f"{param}.max_soft_tokens")
    if detail == "original":
        max_soft_tokens = LOSSLESS
    elif detail is not None:
        max_soft_tokens = DETAIL_BUDGETS.get(detail, max_soft_tokens)
    return ImagePart(ImageSource(url), max_soft_tokens=max_soft_tokens, param=param)
