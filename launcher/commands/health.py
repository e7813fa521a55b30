"""``health``: asks the server on this machine how it is, for health checks that run inside a container."""

from __future__ import annotations

import http.client
import ssl
from typing import Annotated, Final

import typer

from config.environment import load_settings
from config.settings import Settings
from launcher.commands.server_client import ServerError
from launcher.supervision.readiness import reachable_host

TIMEOUT_S: Final = 4.0


def health(
    *,
    ready: Annotated[
        bool, typer.Option("--ready", help="Whether it can generate now, not only whether it runs.")
    ] = False,
) -> None:
    """Ask the server on this machine whether it is alive: the status is 0 if it is, else 75.

    Host, port and TLS are those of the settings. Neither a key nor a client's certificate is needed.
    """
    route = f"/v1/health/{'ready' if ready else 'live'}"
    connection = _connection(load_settings().settings)
    try:
        connection.request("GET", route, headers={"User-Agent": "gemma4-nim"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        message = f"nobody answers at {connection.host}:{connection.port}: {error}"
        raise ServerError(message, "start it, or set NIM_SERVER_PORT to its port") from error
    finally:
        connection.close()
    if status != http.client.OK:
        message = f"{route} answers with status {status}"
        raise ServerError(message, "its log tells what it is doing")
    typer.echo("ready" if ready else "live")


def _connection(settings: Settings) -> http.client.HTTPConnection:
    host, port = reachable_host(settings.server.host), settings.server.port
    if settings.tls.mode == "disabled":
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    # The certificate is for the name that others use; on this machine it is enough that the port answers.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
