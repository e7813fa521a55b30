"""The command itself: options, who reads the questions, and what the process ends with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from launcher.commands.chat.conversation import Conversation
from launcher.commands.chat.pictures import picture_from
from launcher.commands.chat.screen import Screen
from launcher.commands.chat.session import Session
from launcher.commands.chat.turn import AnswerOptions, Turn
from launcher.commands.options import ClientCert, KeyFile, Model, Url, Wait
from launcher.commands.running_server import find_server, wait_for_model
from launcher.errors import ExitCode, LaunchError

Words: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Ask this, print the answer and end.", show_default=False),
]


def chat(  # noqa: PLR0913 - each is an option of the command line
    words: Words = None,
    *,
    url: Url = None,
    model: Model = None,
    system: Annotated[str, typer.Option(metavar="TEXT", help="System message.", show_default=False)] = "",
    image: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", metavar="PATH|URL", help="Picture for the first message. Repeatable."),
    ] = None,
    think: Annotated[bool, typer.Option("--think/--no-think", help="Have the model think before it answers.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="Longest answer, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, metavar="T", help="0 is the likeliest answer.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="The same seed gives the same answer.")] = None,
    load: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Go on with a conversation that /save wrote as .json.")
    ] = None,
    key_file: KeyFile = None,
    client_cert: ClientCert = None,
    wait: Wait = 600,
) -> None:
    """Talk to a running server.

    On a terminal it is a conversation: answers come as they are generated, thoughts are dim, Ctrl-C stops an answer,
    Ctrl-D leaves, /help lists the commands (pictures, thinking, system message, saving).

    With TEXT, or when the input is a pipe, it answers once and ends: only the answer goes to standard output, thoughts
    and notes go to standard error. TEXT and a pipe together are one message: git diff | gemma4-nim chat "Review this:".
    """
    conversation = Conversation(system)
    if load is not None:
        conversation.load(load.expanduser())
    conversation.pending = [picture_from(source) for source in image or ()]
    screen = Screen()
    server = find_server(url, key_file, client_cert)
    try:
        name = wait_for_model(server, model, wait, screen.wait)
    finally:
        screen.finish()
    options = AnswerOptions(name, thinks=think, max_tokens=max_tokens, temperature=temperature, seed=seed)
    turn = Turn(server, options, screen)
    if words or not _is_conversation():
        _once(turn, conversation, words or [])
        return
    screen.note(f"{name} at {server.url}. /help lists the commands, Ctrl-D leaves.")
    Session(turn, options, conversation, screen).run()


def _is_conversation() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _once(turn: Turn, conversation: Conversation, words: list[str]) -> None:
    piped = "" if words and sys.stdin.isatty() else _everything_piped()
    text = "\n\n".join(part for part in (" ".join(words), piped.strip()) if part)
    if not text:
        raise LaunchError(ExitCode.BAD_SETTINGS, "there is nothing to ask: the input is empty", "pipe a text in")
    conversation.ask(text)
    turn.run(conversation)


def _everything_piped() -> str:
    try:
        # Bytes, because what standard input makes of other encodings depends on the locale.
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise LaunchError(ExitCode.BAD_SETTINGS, "the input is not text in UTF-8") from error
