"""Runs console scripts in forks of one process that has imported them: ``python command_forker.py FILE_DESCRIPTOR``.

Importing is most of the work of a short command. Each fork is a process of its own, with the arguments, environment,
folder and standard streams that ``tests.fakes.commands`` sends; it ends as the interpreter ends any script.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import pkgutil
import selectors
import signal
import socket
import sys
import typing
from collections.abc import Callable

import launcher.commands

_LIBRARIES: typing.Final = ("rich.console", "rich.progress", "rich.table", "ssl", "uvloop")
_STREAMS: typing.Final = 3
_MESSAGE_BYTES: typing.Final = 1 << 20


def main() -> None:
    """Serve until the other side closes; in a fork, return when the command has returned."""
    commands = [one.name for one in pkgutil.walk_packages(launcher.commands.__path__, "launcher.commands.")]
    for name in (*_LIBRARIES, *commands):
        importlib.import_module(name)
    scripts = {
        one.name: one.load()
        for one in importlib.metadata.entry_points(group="console_scripts", module="launcher.__main__")
    }
    control = socket.socket(fileno=int(sys.argv[1]))
    watched = selectors.DefaultSelector()
    watched.register(control, selectors.EVENT_READ)
    running: dict[int, tuple[int, int]] = {}
    while True:
        for key, _ in watched.select():
            if key.fileobj is not control:
                watched.unregister(key.fileobj)
                _tell_end(key.fd, *running.pop(key.fd))
                continue
            message, files, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, _STREAMS + 1)
            if not message:
                return
            *streams, told = files
            pid = os.fork()
            if pid == 0:
                watched.close()
                control.close()
                os.close(told)
                command = _become(json.loads(message), streams, scripts)
                command()
                return
            for file in streams:
                os.close(file)
            os.write(told, b"%d\n" % pid)
            handle = os.pidfd_open(pid)
            running[handle] = (pid, told)
            watched.register(handle, selectors.EVENT_READ)


def _tell_end(handle: int, pid: int, told: int) -> None:
    _, status = os.waitpid(pid, 0)
    os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
    os.close(told)
    os.close(handle)


def _become(
    job: dict[str, typing.Any], streams: list[int], scripts: dict[str, Callable[[], object]]
) -> Callable[[], object]:
    """Make this process what the job asks for; return the function of the console script."""
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a stream of the process
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    sys.argv = job["arguments"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return scripts[os.path.basename(sys.argv[0])]  # noqa: PTH119 - a name


if __name__ == "__main__":
    main()
