"""Errors of the build stage. No web or engine import: the launcher maps them to its exit codes and messages."""

from __future__ import annotations


class EngineBuildError(Exception):
    """Base of everything that the build stage raises. ``message`` names the file and the field at fault."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CheckpointError(EngineBuildError):
    """A Hugging Face checkpoint is missing a file or a tensor, is damaged, or is not a Gemma 4 that we know."""


class TokenizerFileError(EngineBuildError):
    """A ``tokenizer.json`` is missing, damaged, or does not fit the checkpoint."""


class GGUFFileError(EngineBuildError):
    """A GGUF file is missing, damaged, or lacks a field that is needed."""


class ExportError(EngineBuildError):
    """A tensor cannot be written in the asked-for type."""


class PlanError(EngineBuildError):
    """What was asked for cannot be built: an engine, a precision and a checkpoint that do not go together."""


class BundleError(EngineBuildError):
    """A bundle cannot be used: a file is missing, changed or damaged, or it was made for something else."""


class TrialError(EngineBuildError):
    """The engine did not load the bundle, or did not answer as it must."""


class GateError(EngineBuildError):
    """The accuracy gate refused the bundle; the message has the figures."""
