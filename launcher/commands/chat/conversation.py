"""What has been said: messages in OpenAI's form, the pictures that wait for the next one, and files to keep it in.

Nothing here reads from a terminal or talks to a server.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.commands.chat.pictures import Picture
from launcher.errors import ExitCode, LaunchError

Message = dict[str, Any]


class Conversation:
    """Messages in turn, after an optional system message.

    Attributes:
        system: text of the system message, empty for none.
        turns: user and assistant messages, in order.
        pending: pictures that go with the next user message.
    """

    def __init__(self, system: str = "") -> None:
        self.system = system
        self.turns: list[Message] = []
        self.pending: list[Picture] = []

    def messages(self) -> list[Message]:
        """Return everything that a request carries."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, *self.turns]

    def ask(self, text: str) -> None:
        """Add what the user says, with the pictures that wait."""
        parts = [picture.part() for picture in self.pending]
        self.pending = []
        content: Any = [*parts, {"type": "text", "text": text}] if parts else text
        self.turns.append({"role": "user", "content": content})

    def answer(self, text: str) -> None:
        """Add what the model has said; thoughts are not part of a conversation."""
        self.turns.append({"role": "assistant", "content": text})

    def take_back(self) -> None:
        """Remove the last user message, which got no answer, so that roles stay in turn."""
        if self.turns and self.turns[-1]["role"] == "user":
            self.turns.pop()

    def drop_answer(self) -> bool:
        """Remove the last answer to have it given anew; tell whether there was one."""
        if not self.turns or self.turns[-1]["role"] != "assistant":
            return False
        self.turns.pop()
        return True

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.turns = []
        self.pending = []

    def save(self, path: Path) -> None:
        """Write it to a file: ``.json`` can be loaded again, any other suffix gets Markdown.

        Raises:
            LaunchError: the file cannot be written.
        """
        if path.suffix == ".json":
            text = json.dumps({"messages": self.messages()}, indent=2, ensure_ascii=False) + "\n"
        else:
            text = "\n\n".join(_markdown(message) for message in self.messages()) + "\n"
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            message = f"{path} cannot be written: {error.strerror or error}"
            raise LaunchError(ExitCode.BAD_SETTINGS, message, "name another file") from error

    def load(self, path: Path) -> None:
        """Take the messages of a ``.json`` file in place of these.

        Raises:
            LaunchError: the file cannot be read or holds no conversation.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            messages = record["messages"] if isinstance(record, dict) else record
            read = [{"role": message["role"], "content": message["content"]} for message in messages]
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror or error}"
            raise LaunchError(ExitCode.BAD_SETTINGS, message, "name another file") from error
        except (ValueError, KeyError, TypeError) as error:
            message = f"{path} holds no conversation"
            raise LaunchError(ExitCode.BAD_SETTINGS, message, "load a .json file that /save wrote") from error
        self.reset()
        self.system = "".join(text_of(message) for message in read if message["role"] == "system")
        self.turns = [message for message in read if message["role"] != "system"]


def text_of(message: Message) -> str:
    """Return the text of a message, a mark for each picture included."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(_part_text(part) for part in _parts(content))


def _parts(content: Any) -> Sequence[Any]:
    return content if isinstance(content, list) else ()


def _part_text(part: Any) -> str:
    is_text = isinstance(part, dict) and part.get("type") == "text"
    return str(part.get("text", "")) if is_text else "[picture] "


def _markdown(message: Message) -> str:
    return f"**{message['role']}**\n\n{text_of(message)}"
