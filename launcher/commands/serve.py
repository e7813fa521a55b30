"""``nim-serve``: the command, with one option for every setting."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from config.reference import TITLES
from config.settings import secrets, sections
from config.settings_flags import CONFIG_FILE, is_flag, option_of
from config.settings_sources import FILE_SUFFIX
from launcher.commands.start import launch


def serve(
    context: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write JSON: one document for --dry-run, else one line for each event.")
    ] = False,
) -> None:
    """Choose what fits this machine, fetch it, and serve it until SIGTERM or Ctrl-C.

    `MODEL` is a GGUF file, a folder with one, or an address: hf://, ngc://, s3://, https://. Without one it is the
    profile that NIM_MODEL_PROFILE names, or the best one for this machine; where no engine for GPUs is installed and
    nothing is said about profiles it is the demo model. With --dry-run nothing is started or downloaded.

    Every setting is an option, a variable, and a key of the file that --config-file names; docs/configuration.md
    has all of them. --host, --port, --model, --profile and --tp are short for --server-host, --server-port,
    --model-path, --model-profile and --tensor-parallel-size. The status says what went wrong: docs/operations.md.
    """
    raise typer.Exit(int(launch(context.args, dry_run=dry_run, as_json=as_json)))


class ServeCommand(TyperCommand):
    """Shows the settings as options in its help; reading them is ``config.settings_flags``'s business."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        known = options.get("context_settings") or {}
        options["context_settings"] = {**known, "allow_extra_args": True, "ignore_unknown_options": True}
        super().__init__(*arguments, **options)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show everything that can be said on the command line."""
        own = list(self.params)
        self.params = [*own, *_settings()]
        try:
            super().format_help(ctx, formatter)
        finally:
            self.params = own

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Add the model, which is read with the settings."""
        return [*super().collect_usage_pieces(ctx), "[MODEL]"]


COMMAND_CLASS = ServeCommand


def _settings() -> list[Any]:
    """Return an option for each setting, in the order and under the titles of the reference."""
    options = {CONFIG_FILE.lower(): _option(CONFIG_FILE, "YAML file with settings.", "Settings file")}
    for section, model in sections().items():
        for field in model.model_fields.values():
            name, text = str(field.alias), " ".join((field.description or "").replace("``", "").split())
            options[name.lower()] = _option(name, text, TITLES[section], _shown(field.default))

    def shown(**_: object) -> None:
        """Never run: typer reads the options off its signature."""

    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in options.items()
    ]
    shown.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    shown.__annotations__ = dict(options)
    application = typer.Typer(add_completion=False)
    application.command()(shown)
    return list(typer.main.get_command(application).params)


def _option(variable: str, text: str, panel: str, default: str = "") -> Any:
    name = variable + FILE_SUFFIX if variable in secrets() else variable
    option, is_switch = option_of(name), is_flag(variable)
    return Annotated[
        bool | None if is_switch else str | None,
        typer.Option(
            f"{option}/--no-{option.removeprefix('--')}" if is_switch else option,
            metavar=None if is_switch else "VALUE",
            help=f"{text} ({name}{default and f', default {default}'})",
            show_default=False,
            rich_help_panel=panel,
        ),
    ]


def _shown(default: object) -> str:
    if default is True:
        return "on"
    if isinstance(default, tuple):
        return ",".join(str(item) for item in default)
    return "" if default is None or default is False else str(default)
