"""The command line of ``gemma4-nim``: which commands there are, in which order help lists them, and where each one is.

Each command lives in a module of its own that is imported only when it is run, so that quick commands stay quick.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from launcher.banner import PRODUCT, version

_COMMANDS: Final = {
    "serve": "launcher.commands.serve:serve",
    "list-model-profiles": "launcher.commands.list_model_profiles:list_model_profiles",
    "download-to-cache": "launcher.commands.download_to_cache:download_to_cache",
    "create-model-store": "launcher.commands.create_model_store:create_model_store",
    "mirror": "launcher.commands.mirror:mirror",
    "airgap": "launcher.commands.airgap.command:airgap",
    "check-cache-env": "launcher.commands.check_cache_env:check_cache_env",
    "build": "launcher.commands.build.command:build",
    "bundle": "launcher.commands.bundle:bundle",
    "doctor": "launcher.commands.doctor.command:doctor",
    "explain": "launcher.commands.explain:explain",
    "estimate": "launcher.commands.estimate:estimate",
    "health": "launcher.commands.health:health",
    "chat": "launcher.commands.chat.command:chat",
    "bench": "launcher.commands.bench.command:bench",
    "hash-key": "launcher.commands.hash_key:hash_key",
}
"""Command -> where its function is, as ``module:name``."""
HELP: Final = {"help_option_names": ["--help", "-h"]}
_ALIASES: Final = {"run": "serve"}
"""What NIM 1.x called a command -> what it is called now."""


def command(name: str, program: str | None = None) -> None:
    """Run one command with the arguments of this process, under the name of its console script."""
    _load(name)(prog_name=program or name)


def _load(name: str) -> TyperCommand:
    module, _, function = _COMMANDS[name].partition(":")
    loaded_module = importlib.import_module(module)
    work: Callable[..., Any] = getattr(loaded_module, function)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    # A command that reads its arguments in its own way brings a class for that.
    command_class = getattr(loaded_module, "COMMAND_CLASS", TyperCommand)
    single.command(name, cls=command_class, context_settings=HELP)(work)
    loaded = typer.main.get_command(single)
    if not isinstance(loaded, TyperCommand):
        raise TypeError(f"{name} is no command")
    return loaded


class _Commands(TyperGroup):
    """Finds commands by name, NIM's spellings with underscores and ``nim`` in front included."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:  # noqa: ARG002 - typer's signature
        name = cmd_name.replace("_", "-").removeprefix("nim-")
        name = _ALIASES.get(name, name)
        return _load(name) if name in _COMMANDS else None


app = typer.Typer(
    name=PRODUCT,
    cls=_Commands,
    help="Serve Google's Gemma 4 behind an OpenAI-style API, and everything around it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings=HELP,
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        typer.echo(f"{PRODUCT} {version()}")
        raise typer.Exit


@app.callback()
def _commands(
    *,
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    # typer takes an application for a group of commands when it has a callback.
    pass
