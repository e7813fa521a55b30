"""What LoRA adapters ask of a plan: an engine that loads them, and a folder that is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from config.settings import Settings
from config.settings_adapters import AdapterSettings
from launcher.errors import ExitCode, LaunchError
from launcher.plan.result import Refusal

ADAPTER_ENGINE: Final = "vllm"
SOURCE: Final = "NIM_PEFT_SOURCE"
_NAMES: Final = {"llama_cpp": "llama.cpp", "tensorrt_llm": "TensorRT-LLM"}


def refuse_adapters(settings: Settings, core: str) -> Refusal | None:
    """Return why a model of the user's own cannot be served with adapters by this engine; None when it can."""
    if settings.adapters.source is None or core == ADAPTER_ENGINE:
        return None
    return Refusal(
        f"{SOURCE} is set, and {_NAMES.get(core, core)} loads no adapters: vLLM does",
        "in an image with vLLM, set NIM_ENGINE=vllm and NIM_MODEL_PATH to a checkpoint in Hugging Face layout, or "
        f"leave the choice to the profiles (NIM_TAGS_SELECTOR=feat_lora=true); or unset {SOURCE}",
        code="adapters",
    )


def name_adapters(refusal: Refusal, settings: Settings) -> Refusal:
    """Return the refusal with a word on adapters, where they were one of the wishes that nothing could meet."""
    if settings.adapters.source is None:
        return refusal
    return replace(refusal, remedy=f"{refusal.remedy}; only vLLM loads adapters, without them unset {SOURCE}")


def wanted_adapters(settings: Settings) -> AdapterSettings | None:
    """Return what the settings say of adapters; None when none are wanted."""
    return None if settings.adapters.source is None else settings.adapters


def check_adapter_folder(settings: Settings) -> None:
    """See that the folder of adapters is there before anything is downloaded.

    Raises:
        LaunchError: it is not.
    """
    source = settings.adapters.source
    if source is not None and not source.expanduser().is_dir():
        message = f"{SOURCE}={str(source)!r} is no folder that can be seen here"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "mount it into the container, or unset it")


def adapter_rows(adapters: AdapterSettings | None) -> list[tuple[str, str]]:
    """Return what a plan says of adapters as names and values, for people; nothing where there are none."""
    if adapters is None:
        return []
    again = f", looked at every {adapters.refresh_s:g} s" if adapters.refresh_s else ""
    return [("adapters", f"{adapters.source}{again}; {adapters.max_gpu} at once, of rank {adapters.max_rank} at most")]
