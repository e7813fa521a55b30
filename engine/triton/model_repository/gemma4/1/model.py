# ruff: noqa: INP001 - the folders are the form that Triton demands, no package
"""The file that Triton's Python backend looks for. The model itself is a module of the installed package."""

from engine.triton.model import TritonPythonModel

__all__ = ["TritonPythonModel"]
