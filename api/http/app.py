"""Builds the web application of one API process from what the launcher decided and the user set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from starlette.routing import Route

from api.chat.service import ChatService
from api.gemma4.tokenizer import Gemma4Tokenizer
from api.http import capabilities, chat, diagnostics, docs_page, health, metadata, metrics, models
from api.http.access_options import add_access
from api.http.errors import install_error_handlers
from api.http.metadata_facts import release
from api.http.metrics import RequestMetrics, counting_progress
from api.http.middleware import RequestScope
from api.http.openapi import Application
from api.http.options import ApiOptions
from api.http.server_state import ServerState
from api.http.tracing import tracing
from api.media.decoder_pool import DecoderPool
from api.media.fetch import UrlFetcher
from api.media.resolver import Decoder, MediaLimits, MediaResolver
from config.runtime import ApiRuntime
from engine.triton.client import EngineClient
from engine.triton.connection import ConnectionOptions

_WARM_AFTER_S: Final = 1.0
"""When the first decoder is started: after the rush for the cores in which the engine loads its model."""


def create_app(runtime: ApiRuntime, options: ApiOptions) -> FastAPI:
    """Return the application. Connections to the engine are made when it starts and closed when it stops.

    Raises:
        OSError: when the tokenizer cannot be read.
        api.gemma4.errors.VocabularyError: when it is not Gemma 4's.
    """
    tokenizer = Gemma4Tokenizer.from_json(runtime.tokenizer_path.read_text(encoding="utf-8"))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = EngineClient(runtime.engine_endpoints, ConnectionOptions.of(runtime.connection))
        decoders = DecoderPool(options.decoders)
        if options.max_images:
            decoders.warm(_WARM_AFTER_S)
        media = _media_resolver(options, decoders)
        app.state.server = ServerState(
            service=ChatService(engine, tokenizer, media, options.access.max_queue_s),
            engine=engine,
            options=options,
            runtime=runtime,
        )
        try:
            with tracing(app, options.traces), counting_progress():
                yield
        finally:
            await decoders.close()
            await engine.close()

    app = Application(
        title="gemma4-nim",
        version=release(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        description="OpenAI-style API for Gemma 4.",
    )
    _add_routes(app, options)
    install_error_handlers(app)
    add_access(app, options.access)
    app.add_middleware(RequestMetrics)
    app.add_middleware(RequestScope)
    return app


def _add_routes(app: FastAPI, options: ApiOptions) -> None:
    modules = (chat, models, capabilities, health, metadata, metrics, docs_page)
    routers = [module.router for module in modules] + ([diagnostics.router] if options.diagnostics else [])
    for router in routers:
        app.include_router(router)
    app.state.paths = frozenset(route.path for router in routers for route in router.routes if isinstance(route, Route))


def _media_resolver(options: ApiOptions, decoder: Decoder) -> MediaResolver:
    limits = MediaLimits(
        max_images=options.max_images,
        default_tokens=options.image_tokens,
        max_image_bytes=options.max_image_bytes,
        local_folder=options.local_media_path,
        cache_bytes=options.image_cache_bytes,
    )
    fetcher = UrlFetcher(options.fetch_policy, options.fetch_limits) if options.fetch_policy else None
    return MediaResolver(limits, decoder, fetcher)
