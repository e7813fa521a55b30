"""``gemma4-nim chat`` as its user runs it, piped and in a terminal, against a scripted server and the real one."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import ExitCode
from tests.fakes import commands
from tests.fakes.openai_server import FakeServer, openai_server
from tests.fakes.pictures import plain
from tests.fakes.processes import free_port, wait_until
from tests.fakes.terminal import CTRL_C, CTRL_D, ENTER, Terminal

COMMAND = [str(Path(sys.executable).with_name("gemma4-nim")), "chat"]
TIMEOUT_S = 90


def _chat(*arguments: str, text: str | bytes = "") -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NIM_")}
    data = text.encode() if isinstance(text, str) else text
    return commands.run([*COMMAND, *arguments], kept, TIMEOUT_S, data)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with openai_server() as running:
        yield running


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a red one.png"
    path.write_bytes(plain())
    return path


def test_pipe_gets_the_answer_and_nothing_else(server: FakeServer) -> None:
    """``echo hi | gemma4-nim chat``: the answer is standard output, to the byte."""
    done = _chat("--url", server.url, text="hi\n")

    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, "Hello!\n", "")
    request = server.script.requests[0]
    assert request["messages"] == [{"role": "user", "content": "hi"}]
    assert request["model"] == "fake-model"
    assert "chat_template_kwargs" not in request


def test_arguments_and_pipe_are_one_message(server: FakeServer) -> None:
    """What is piped follows what is asked, as in ``git diff | gemma4-nim chat Review this``."""
    _chat("--url", f"{server.url}/v1/", "Review", "this", text="- a\n+ b\n")

    assert server.script.requests[0]["messages"][-1]["content"] == "Review this\n\n- a\n+ b"


def test_thoughts_stay_out_of_the_answer(server: FakeServer) -> None:
    """With --think the thought goes to standard error, so that a pipe gets the answer alone."""
    server.script.answer = ({"reasoning": "Let me see."}, {"content": "Four"}, {"content": "."})
    done = _chat("--url", server.url, "--think", text="2 + 2?")

    assert done.stdout == "Four.\n"
    assert done.stderr == "Let me see.\n"
    assert server.script.requests[0]["chat_template_kwargs"] == {"enable_thinking": True}


def test_options_reach_the_server(server: FakeServer, picture: Path, tmp_path: Path) -> None:
    """Model, system message, pictures, limits, seed and key are sent as they were given."""
    key = tmp_path / "key"
    key.write_text("secret\n")
    options = ["--model", "other", "--system", "Be brief.", "--image", str(picture), "-i", "https://example.com/b.png"]
    _chat("--url", server.url, *options, "--max-tokens", "7", "--temperature", "0", "--seed", "3",
          "--key-file", str(key), "What?")  # fmt: skip

    request = server.script.requests[0]
    assert (request["model"], request["max_completion_tokens"], request["temperature"], request["seed"]) == (
        "other",
        7,
        0,
        3,
    )
    system, user = request["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    file, web, text = user["content"]
    kind, _, data = file["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == picture.read_bytes()
    assert web["image_url"]["url"] == "https://example.com/b.png"
    assert text == {"type": "text", "text": "What?"}
    assert server.script.headers[0]["Authorization"] == "Bearer secret"


def test_no_server_is_one_line_and_a_status() -> None:
    """Nobody listens: the address, and what to do, without a traceback."""
    url = f"http://127.0.0.1:{free_port()}"
    done = _chat("--url", url, text="hi")

    assert done.returncode == ExitCode.DOWNLOAD_FAILED
    assert (
        done.stderr
        == f"gemma4-nim: no server answers at {url} (start one with nim-serve, or give its address with --url)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "ftp://example.com"], "--url 'ftp://example.com' is not the address of a server"),
        (["--url", "http://host:port"], "is not the address of a server"),
        (["--image", "absent.png"], "absent.png cannot be read: No such file or directory"),
        (["--image", __file__], "is not a PNG, JPEG, GIF, WebP or BMP picture"),
        (["--load", "absent.json"], "absent.json cannot be read"),
        (["--key-file", "absent.key"], "--key-file absent.key cannot be read"),
    ],
)
def test_bad_option_is_named(arguments: list[str], words: str) -> None:
    """An address, picture or file that cannot be used ends the command before anything is asked."""
    done = _chat(*arguments, text="hi")

    assert done.returncode == ExitCode.BAD_SETTINGS
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_empty_input_is_refused(server: FakeServer) -> None:
    """Nothing to ask is a mistake of the caller, not an empty question."""
    done = _chat("--url", server.url, text=" \n")

    assert done.returncode == ExitCode.BAD_SETTINGS
    assert "there is nothing to ask" in done.stderr
    assert not server.script.requests


def test_binary_input_is_refused(server: FakeServer) -> None:
    """A picture on standard input is not a text."""
    done = _chat("--url", server.url, text=b"\x89PNG\xff\xfe")

    assert done.returncode == ExitCode.BAD_SETTINGS
    assert "not text in UTF-8" in done.stderr


def test_refusal_is_told_in_the_servers_words(server: FakeServer) -> None:
    """A 400 shows the server's message and is the asker's fault; a 429 may be tried again."""
    server.script.refusal = (400, "messages.0: too long")
    refused = _chat("--url", server.url, text="hi")
    server.script.refusal = (429, "the queue is full")
    busy = _chat("--url", server.url, text="hi")

    assert refused.returncode == ExitCode.BAD_SETTINGS
    assert refused.stderr == "gemma4-nim: the server says: messages.0: too long\n"
    assert busy.returncode == ExitCode.DOWNLOAD_FAILED


def test_broken_answer_is_a_failure(server: FakeServer) -> None:
    """What came is shown, but a connection that breaks in the middle is not status 0."""
    server.script.breaks_off = True
    done = _chat("--url", server.url, text="hi")

    assert done.returncode == ExitCode.DOWNLOAD_FAILED
    assert done.stdout == "Hello!\n"
    assert "from" in done.stderr or "in the middle of the answer" in done.stderr


def test_other_server_is_recognised() -> None:
    """A server that is up but not of this kind is said to be so."""
    with openai_server() as other:
        done = _chat("--url", f"{other.url}/elsewhere", text="hi")

    assert done.returncode == ExitCode.BAD_SETTINGS
    assert "the server says: no such route" in done.stderr


def test_server_that_loads_is_waited_for(server: FakeServer) -> None:
    """A 503 on readiness is waited for; with --wait 0 it is an error at once."""
    server.script.is_ready = False
    at_once = _chat("--url", server.url, "--wait", "0", text="hi")
    threading.Timer(0.5, lambda: setattr(server.script, "is_ready", True)).start()
    patient = _chat("--url", server.url, text="hi")

    assert at_once.returncode == ExitCode.DOWNLOAD_FAILED
    assert "is not ready after 0 s" in at_once.stderr
    assert patient.stdout == "Hello!\n"


def test_cut_answer_says_so(server: FakeServer) -> None:
    """An answer at the limit of tokens is shown, with a note on standard error."""
    server.script.finish_reason = "length"
    done = _chat("--url", server.url, text="hi")

    assert done.returncode == ExitCode.OK
    assert done.stdout == "Hello!\n"
    assert "the limit of tokens is reached" in done.stderr


def _terminal(server: FakeServer, *arguments: str, **variables: str) -> Terminal:
    return Terminal([*COMMAND, "--url", server.url, *arguments], variables)


def test_conversation_in_a_terminal(server: FakeServer) -> None:
    """Turns follow each other, each with everything said before; Ctrl-D leaves with status 0."""
    with _terminal(server) as terminal:
        terminal.wait_for("fake-model at")
        terminal.wait_for("> ")
        terminal.type(f"hi{ENTER}")
        terminal.wait_for("Hello!")
        terminal.wait_for("2 tokens, first after")
        terminal.wait_for("> ")
        terminal.type(f"and now?{ENTER}")
        terminal.wait_for("Hello!")
        terminal.wait_for("> ")
        terminal.type(CTRL_D)
        assert terminal.end() == ExitCode.OK

    roles = [(message["role"], message["content"]) for message in server.script.requests[1]["messages"]]
    assert roles == [("user", "hi"), ("assistant", "Hello!"), ("user", "and now?")]
    assert "\x1b[1;36m" in terminal.raw()


def test_thought_is_dim_and_switched_by_a_command(server: FakeServer) -> None:
    """/think turns thinking on, shown dim before the answer, and off again."""
    server.script.answer = ({"reasoning": "Hmm."}, {"content": "Four."})
    with _terminal(server) as terminal:
        for keys, shown in (("/think", "thinking is on"), ("2 + 2?", "Four."), ("/think 50", "at most 50 tokens"),
                            ("again", "Four."), ("/think off", "thinking is off"), ("more", "Four.")):  # fmt: skip
            terminal.wait_for("> ")
            terminal.type(f"{keys}{ENTER}")
            terminal.wait_for(shown)
        terminal.wait_for("> ")

    thinking, bounded, plain = server.script.requests
    assert thinking["chat_template_kwargs"] == {"enable_thinking": True}
    assert "thinking_token_budget" not in thinking
    assert bounded["thinking_token_budget"] == 50
    assert "chat_template_kwargs" not in plain
    assert "\x1b[2;3mHmm." in terminal.raw()
    # Thoughts are not part of what is said.
    assert bounded["messages"][1] == {"role": "assistant", "content": "Four."}


def test_no_color_is_honoured(server: FakeServer) -> None:
    """With NO_COLOR no colour is sent to a terminal."""
    with _terminal(server, NO_COLOR="1") as terminal:
        terminal.wait_for("> ")
        terminal.type(f"/imge{ENTER}")
        terminal.wait_for("did you mean /image?")
        terminal.wait_for("> ")

    assert "\x1b[3" not in terminal.raw()
    assert "\x1b[1;3" not in terminal.raw()


def test_interrupt_stops_the_answer_and_not_the_chat(server: FakeServer) -> None:
    """Ctrl-C closes the connection; what had come stays in the conversation, and the next question is answered."""
    go_on = threading.Event()
    server.script.answer = ({"content": "Once upon"}, lambda: go_on.wait(100) and None, *({"content": " more"},) * 2000)
    with _terminal(server) as terminal:
        terminal.wait_for("> ")
        terminal.type(f"a story{ENTER}")
        terminal.wait_for("Once upon")
        terminal.type(CTRL_C)
        terminal.wait_for("stopped")
        go_on.set()
        wait_until(server.script.closed.is_set, what="the connection closed")
        server.script.answer = ({"content": "Yes."},)
        terminal.wait_for("> ")
        terminal.type(CTRL_C)
        terminal.wait_for("Ctrl-D leaves")
        terminal.type(f"still there?{ENTER}")
        terminal.wait_for("Yes.")

    assert server.script.requests[1]["messages"][1] == {"role": "assistant", "content": "Once upon"}


def test_failed_question_is_taken_back(server: FakeServer) -> None:
    """After an error the roles are still in turn, and the chat goes on."""
    server.script.refusal = (400, "no")
    with _terminal(server) as terminal:
        terminal.wait_for("> ")
        terminal.type(f"first{ENTER}")
        terminal.wait_for("the server says: no")
        server.script.refusal = None
        terminal.wait_for("> ")
        terminal.type(f"second{ENTER}")
        terminal.wait_for("Hello!")

    assert server.script.requests[1]["messages"] == [{"role": "user", "content": "second"}]


def test_pictures_in_a_terminal(server: FakeServer, picture: Path) -> None:
    """/image takes a path with spaces or a URL, waits for the message or goes with it at once."""
    with _terminal(server) as terminal:
        terminal.wait_for("> ")
        terminal.type(f"/image '{picture}'{ENTER}")
        terminal.wait_for("goes with your next message")
        terminal.wait_for("> ")
        terminal.type(f"/image https://example.com/b.png Which is larger?{ENTER}")
        terminal.wait_for("Hello!")
        terminal.type(f"/image absent.png{ENTER}")
        terminal.wait_for("absent.png cannot be read")
        terminal.type(f"and now?{ENTER}")
        terminal.wait_for("Hello!")

    first, second = server.script.requests
    kinds = [part["type"] for part in first["messages"][0]["content"]]
    assert kinds == ["image_url", "image_url", "text"]
    assert first["messages"][0]["content"][2]["text"] == "Which is larger?"
    assert second["messages"][-1]["content"] == "and now?"


def test_text_of_several_lines(server: FakeServer) -> None:
    """A backslash continues a line, three quotation marks hold lines together, two slashes send one."""
    with _terminal(server) as terminal:
        terminal.wait_for("> ")
        terminal.type(f"one \\{ENTER}")
        terminal.wait_for(". ")
        terminal.type(f"two{ENTER}")
        terminal.wait_for("Hello!")
        terminal.wait_for("> ")
        for line in ('"""', "a", "", "b", '"""'):
            terminal.type(f"{line}{ENTER}")
        terminal.wait_for("Hello!")
        terminal.wait_for("> ")
        terminal.type(f"//image is a command{ENTER}")
        terminal.wait_for("Hello!")

    said = [request["messages"][-1]["content"] for request in server.script.requests]
    assert said == ["one \ntwo", "a\n\nb", "/image is a command"]


def test_conversation_is_saved_and_loaded(server: FakeServer, tmp_path: Path) -> None:
    """/save writes JSON that --load goes on with, and Markdown for people; /retry, /reset and /system work on it."""
    saved, page = tmp_path / "talk.json", tmp_path / "talk.md"
    with _terminal(server, "--system", "Be brief.") as terminal:
        for keys, shown in (("hi", "Hello!"), (f"/save {saved}", "saved to"), (f"/save {page}", "saved to"),
                            ("/retry", "Hello!"), ("/reset", "a new conversation"), ("/system Be long.", "Be long."),
                            ("/retry", "no answer to give anew"), ("new", "Hello!")):  # fmt: skip
            terminal.wait_for("> ")
            terminal.type(f"{keys}{ENTER}")
            terminal.wait_for(shown)
        terminal.wait_for("> ")
        terminal.type(f"/exit{ENTER}")
        assert terminal.end() == ExitCode.OK
    loaded = _chat("--url", server.url, "--load", str(saved), text="go on")

    system = {"role": "system", "content": "Be brief."}
    turn = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!"}]
    assert json.loads(saved.read_text())["messages"] == [system, *turn]
    assert page.read_text() == "**system**\n\nBe brief.\n\n**user**\n\nhi\n\n**assistant**\n\nHello!\n"
    first, again, anew, last = (request["messages"] for request in server.script.requests)
    assert first == again == [system, turn[0]]
    assert anew == [{"role": "system", "content": "Be long."}, {"role": "user", "content": "new"}]
    assert loaded.returncode == ExitCode.OK
    assert last == [system, *turn, {"role": "user", "content": "go on"}]


def test_answer_cannot_steer_the_terminal(server: FakeServer) -> None:
    """Escape sequences in an answer are not carried out."""
    server.script.answer = ({"content": "a\x1b]0;owned\x07\x1b[2Jb\r"},)
    with _terminal(server) as terminal:
        terminal.wait_for("> ")
        terminal.type(f"hi{ENTER}")
        terminal.wait_for("a]0;owned[2Jb")
        terminal.wait_for("> ")

    assert "\x1b]0;" not in terminal.raw()
    assert "\x1b[2J" not in terminal.raw()


def test_tab_completes_commands_and_paths(server: FakeServer, tmp_path: Path) -> None:
    """Tab completes the name of a command, and a path after it."""
    (tmp_path / "picture.png").write_bytes(plain())
    with _terminal(server) as terminal:
        terminal.wait_for("> ")
        terminal.type(f"/im\t{tmp_path}/pict\t what{ENTER}")
        terminal.wait_for("Hello!")

    assert server.script.requests[0]["messages"][0]["content"][1]["text"] == "what"


def test_help_lists_every_command(server: FakeServer) -> None:
    """/help names all commands; an unknown one is refused and not sent."""
    with _terminal(server) as terminal:
        terminal.wait_for("> ")
        terminal.type(f"/help{ENTER}")
        shown = terminal.wait_for("sends a slash")
        terminal.wait_for("> ")
        terminal.type(f"/frobnicate{ENTER}")
        terminal.wait_for("/help lists the commands")

    for name in ("/image", "/think", "/system", "/retry", "/reset", "/save", "/load", "/exit"):
        assert name in shown
    assert not server.script.requests


def test_chat_with_the_product(base_url: str) -> None:
    """The demo model answers through the real server: text, thinking, and a picture."""
    picture = Path(__file__).parents[2] / "docs" / "images" / "red-circle.png"
    options = ["--url", base_url, "--temperature", "0"]
    text = _chat(*options, text="What is the capital of France?")
    thinking = _chat(*options, "--think", text="What is 7 + 8?")
    seen = _chat(*options, "--image", str(picture), text="What colour is the shape?")

    assert "Paris" in text.stdout
    assert "15" in thinking.stdout
    assert "15" in thinking.stderr
    assert "red" in seen.stdout
