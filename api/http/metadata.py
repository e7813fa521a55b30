"""``/v1/metadata``, ``/v1/manifest``, ``/v1/license`` and ``/v1/version``: what is installed here, in NIM's shapes.

None of them asks the engine, so all of them answer while the model is still loading.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request

from api.errors import ApiError
from api.http.metadata_facts import ModelFacts, licence, public_url, release, short_name
from api.http.server_state import state_of
from config.errors import ConfigError
from config.manifest import load_manifest
from config.manifest_export import export_yaml

router = APIRouter(tags=["metadata"])

_LICENCE_NAME: Final = "Apache License 2.0"
_LICENCE_TYPE: Final = "Apache-2.0"
_LICENCE_URL: Final = "https://www.apache.org/licenses/LICENSE-2.0"


class ManifestUnreadableError(ApiError):
    """The manifest was there when the server started and cannot be read now."""

    code = "manifest_unreadable"


@router.get("/v1/version")
async def version(request: Request) -> dict[str, str]:
    """Tell the version of the server and that of the description of its API."""
    return {"release": release(), "api": str(request.app.openapi_version)}


@router.get("/v1/license")
async def show_licence() -> dict[str, Any]:
    """Return the licence of the server with its text."""
    return _licence_info()


@router.get("/v1/metadata")
async def metadata(request: Request) -> dict[str, Any]:
    """Tell the version, the licence, the model's origin, and the profile that was chosen."""
    state = state_of(request)
    facts = state.options.model
    return {
        "assetInfo": [public_url(url) for url in facts.urls],
        "licenseInfo": _licence_info(),
        "modelInfo": _model_info(facts, state.served_names[0]),
        "repository_override": public_url(facts.repository_override),
        "version": release(),
        "selectedModelProfileId": facts.profile_id,
    }


@router.get("/v1/manifest")
async def manifest(request: Request) -> dict[str, str]:
    """Return the manifest of profiles, a YAML document, as one text.

    Raises:
        ManifestUnreadableError: the file that was named is gone or damaged by now.
    """
    path = state_of(request).options.model.manifest_path
    try:
        # Hundreds of profiles: other requests are served meanwhile.
        return {"manifest_file": await asyncio.to_thread(_manifest_text, path)}
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        raise ManifestUnreadableError("The manifest cannot be read.") from error


@lru_cache(maxsize=1)
def _manifest_text(path: Path | None) -> str:
    return export_yaml(load_manifest()) if path is None else path.read_text(encoding="utf-8")


def _licence_info() -> dict[str, Any]:
    return {"name": _LICENCE_NAME, "type": _LICENCE_TYPE, "url": _LICENCE_URL, **asdict(licence())}


def _model_info(facts: ModelFacts, served_name: str) -> list[dict[str, str]]:
    """Return where each part of the model came from; a local model has a name only."""
    if not facts.urls:
        return [{"shortName": served_name, "modelUrl": ""}]
    return [{"shortName": short_name(url) or served_name, "modelUrl": public_url(url)} for url in facts.urls]
