"""Opens the port that the server listens on, or says in one line why that cannot be."""

from __future__ import annotations

import errno
import socket
from typing import Final

from launcher.errors import ExitCode, LaunchError

BACKLOG: Final = 2048


def open_listener(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        LaunchError: the port is taken or forbidden, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refusal(host, port, error) from error
    try:
        # Without it, connections of a server that has just stopped would keep the port for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(host, port, error) from error
    listener.settimeout(0)  # an event loop reads it
    return listener


def _refusal(host: str, port: int, error: OSError) -> LaunchError:
    if error.errno == errno.EADDRINUSE:
        message = f"port {port} is taken by another program"
        return LaunchError(ExitCode.PORT_UNAVAILABLE, message, "set NIM_SERVER_PORT to a free port")
    if error.errno in (errno.EACCES, errno.EPERM):
        message = f"port {port} may not be used by this user"
        return LaunchError(ExitCode.PORT_UNAVAILABLE, message, "set NIM_SERVER_PORT to a port from 1024 up")
    message = f"NIM_SERVER_HOST={host!r} is not an address of this machine"
    return LaunchError(ExitCode.BAD_SETTINGS, message, "use 0.0.0.0 or 127.0.0.1")
