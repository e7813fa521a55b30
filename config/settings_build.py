"""Settings of engine bundles: which one is served, where they lie, and how long a build may take."""

from __future__ import annotations

from pathlib import Path

from config.settings_base import SettingsModel, variable


class BuildSettings(SettingsModel):
    """Engine bundles, which ``gemma4-nim build`` makes."""

    bundle: Path | None = variable("NIM_ENGINE_BUNDLE", None)
    """Folder of an engine bundle to serve. ``NIM_MODEL_PATH`` takes one, too."""
    folder: Path | None = variable("NIM_BUNDLE_PATH", None)
    """Folder in which bundles are kept, perhaps shared by several machines. Unset: ``bundles`` in the cache folder."""
    timeout_s: float = variable("NIM_BUILD_TIMEOUT_SECONDS", 7200.0, gt=0, le=172_800)
    """Seconds that each process of a build may take: quantising, or one start of the engine with all its requests."""
