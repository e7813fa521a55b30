"""The chat's loop on a terminal: reads a text or a command, carries it out, until the input ends."""

from __future__ import annotations

import difflib
import io
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from launcher.commands.chat.conversation import Conversation
from launcher.commands.chat.line_reader import LineReader
from launcher.commands.chat.pictures import picture_from
from launcher.commands.chat.screen import Screen
from launcher.commands.chat.turn import AnswerOptions, Turn
from launcher.errors import ExitCode, LaunchError

COMMANDS: Final[Mapping[str, str]] = {
    "/image": "PATH|URL [TEXT]  attach a picture; with TEXT ask at once",
    "/think": "[on|off|TOKENS]  have the model think first, shown dim; TOKENS bounds the thought",
    "/system": "[TEXT]          set the system message; without TEXT show it, with - remove it",
    "/retry": "                have the last answer given anew",
    "/reset": "                forget the conversation, keep the system message",
    "/save": "FILE            write the conversation: .json can be loaded again, anything else is Markdown",
    "/load": "FILE.json       go on with a saved conversation",
    "/help": "                show this",
    "/exit": "                leave; Ctrl-D does, too",
}
KEYS: Final = (
    'Ctrl-C stops an answer. A line that ends with \\ goes on in the next; """ on a line of its own opens and closes\n'
    "a text of several lines. // at the start of a line sends a slash."
)


class Session:
    """One chat on a terminal."""

    def __init__(self, turn: Turn, options: AnswerOptions, conversation: Conversation, screen: Screen) -> None:
        self._turn = turn
        self._options = options
        self._conversation = conversation
        self._screen = screen
        self._reader = LineReader(tuple(COMMANDS), has_colours=screen.has_colours)
        self._actions: dict[str, Callable[[str], None]] = {
            "/image": self._image,
            "/think": self._think,
            "/system": self._system,
            "/retry": self._retry,
            "/reset": self._reset,
            "/save": self._save,
            "/load": self._load,
            "/help": self._help,
        }

    def run(self) -> None:
        """Read and answer until the user leaves."""
        while True:
            try:
                text = self._reader.read()
            except EOFError:
                self._screen.note("")
                return
            except KeyboardInterrupt:
                self._screen.note("\nCtrl-D leaves")
                continue
            if text.strip() in ("/exit", "/quit", "/bye"):
                return
            try:
                self._carry_out(text)
            except LaunchError as error:
                self._screen.failure(error.message, error.remedy)
            except KeyboardInterrupt:
                self._screen.note("stopped")

    def _carry_out(self, text: str) -> None:
        if not text.strip():
            return
        if not text.startswith("/") or text.startswith("//"):
            self._say(text[1:] if text.startswith("//") else text)
            return
        name, _, rest = text.partition(" ")
        action = self._actions.get(name.strip())
        if action is None:
            nearest = difflib.get_close_matches(name, self._actions, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else "/help lists the commands"
            raise LaunchError(ExitCode.BAD_SETTINGS, f"there is no command {name}", hint)
        action(rest.strip())

    def _say(self, text: str) -> None:
        self._conversation.ask(text)
        self._turn.run(self._conversation)

    def _image(self, rest: str) -> None:
        source, text = _first_word(rest)
        if not source:
            raise LaunchError(ExitCode.BAD_SETTINGS, "/image needs a picture", "give a path or an http(s) URL")
        picture = picture_from(source)
        self._conversation.pending.append(picture)
        if text:
            self._say(text)
        else:
            self._screen.note(f"{picture.name} goes with your next message")

    def _think(self, rest: str) -> None:
        if rest.isdecimal() and int(rest) > 0:
            self._options.thinks, self._options.thought_tokens = True, int(rest)
        elif rest in ("", "on", "off"):
            self._options.thinks = not self._options.thinks if rest == "" else rest == "on"
            self._options.thought_tokens = None
        else:
            raise LaunchError(ExitCode.BAD_SETTINGS, f"/think does not know {rest!r}", "on, off, or a number of tokens")
        bound = f", at most {self._options.thought_tokens} tokens" if self._options.thought_tokens else ""
        self._screen.note(f"thinking is {'on' if self._options.thinks else 'off'}{bound}")

    def _system(self, rest: str) -> None:
        if rest:
            self._conversation.system = "" if rest == "-" else rest
        self._screen.note(f"system message: {self._conversation.system or 'none'}")

    def _retry(self, _: str) -> None:
        before = list(self._conversation.turns)
        if not self._conversation.drop_answer():
            raise LaunchError(ExitCode.BAD_SETTINGS, "there is no answer to give anew")
        try:
            self._turn.run(self._conversation)
        except LaunchError:
            self._conversation.turns = before
            raise

    def _reset(self, _: str) -> None:
        self._conversation.reset()
        self._screen.note("a new conversation")

    def _save(self, rest: str) -> None:
        path = _file(rest, "/save")
        self._conversation.save(path)
        self._screen.note(f"saved to {path}")

    def _load(self, rest: str) -> None:
        self._conversation.load(_file(rest, "/load"))
        self._screen.note(f"{len(self._conversation.turns)} messages loaded")

    def _help(self, _: str) -> None:
        for name, text in COMMANDS.items():
            self._screen.note(f"{name:8} {text}")
        self._screen.note(KEYS)


def _first_word(text: str) -> tuple[str, str]:
    """Split the first word off; quotation marks and backslashes keep a path with spaces together."""
    stream = io.StringIO(text)
    lexer = shlex.shlex(stream, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        word = lexer.get_token()
    except ValueError as error:
        raise LaunchError(ExitCode.BAD_SETTINGS, "a quotation mark is not closed", "close it") from error
    return (word or "").strip(), stream.read().strip()


def _file(rest: str, name: str) -> Path:
    path, _ = _first_word(rest)
    if not path:
        raise LaunchError(ExitCode.BAD_SETTINGS, f"{name} needs a file name")
    return Path(path).expanduser()
