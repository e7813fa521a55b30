"""Lets pages of chosen origins use the server from a browser; without origins no header of it is sent."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """What a browser is told; ``config.settings_access.CorsSettings`` explains each."""

    allow_origins: tuple[str, ...]
    allow_methods: tuple[str, ...]
    allow_headers: tuple[str, ...]
    expose_headers: tuple[str, ...]
    max_age_s: int


def add_cors(app: FastAPI, policy: CorsPolicy | None) -> None:
    """Put the middleware around what the application has so far.

    Keys travel in headers that a page sets itself, so a browser is never asked to add cookies.
    """
    if policy is None:
        return
    app.add_middleware(
        CORSMiddleware,
        allow_origins=policy.allow_origins,
        allow_methods=policy.allow_methods,
        allow_headers=policy.allow_headers,
        expose_headers=policy.expose_headers,
        max_age=policy.max_age_s,
        allow_credentials=False,
    )
