"""The one place that turns errors into HTTP answers: OpenAI's error object, headers, and no internals."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.chat.errors import ChatError
from api.errors import (
    ApiError,
    BadRequestError,
    InternalError,
    MethodNotAllowedError,
    RouteNotFoundError,
    to_api_error,
)
from api.telemetry.record import current_record
from engine.errors import EngineError

_log = logging.getLogger("api.errors")


def install_error_handlers(app: FastAPI) -> None:
    """Register the handlers of every error that a route may raise."""
    for known in (ApiError, ChatError, EngineError):
        app.add_exception_handler(known, _handle_known)
    app.add_exception_handler(HTTPException, _handle_http)
    app.add_exception_handler(RequestValidationError, _handle_validation)


def error_response(error: ApiError) -> Response:
    """Return the HTTP answer for an error."""
    return _response(error, error.headers)


def describe(error: Exception, request_id: str) -> ApiError:
    """Return what the client may see of any error; one that is unexpected is logged under the request id."""
    known = to_api_error(error)
    if known is None:
        _log.error("request %s failed", request_id, exc_info=error)
        known = InternalError(request_id)
        current_record().error_code = str(known.code)
        return known
    current_record().error_code = str(known.code)
    if known.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("request %s: %s: %s", request_id, type(error).__name__, error)
    return known


def request_id_of(request: Request) -> str:
    """Return the id that the middleware gave to this request."""
    return str(request.scope.get("state", {}).get("request_id", ""))


async def _handle_known(request: Request, error: Exception) -> Response:
    return error_response(describe(error, request_id_of(request)))


async def _handle_http(request: Request, error: Exception) -> Response:
    """Answer for routing: unknown paths and methods."""
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    what = f"{request.method} {request.url.path[:200]}"
    if status == HTTPStatus.NOT_FOUND:
        return _response(RouteNotFoundError(f"Unknown request URL: {what}.{_hint(request)}"), headers)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return _response(MethodNotAllowedError(f"Not allowed: {what}."), headers)
    return _response(describe(error, request_id_of(request)), headers)


def _hint(request: Request) -> str:
    """Say which address may be meant: clients are often given one with a ``/v1`` too few or too many."""
    known, path = request.app.state.paths, request.url.path
    others = (f"/v1{path}", path.removeprefix("/v1"))
    meant = next((other for other in others if other in known and other != path), None)
    return "" if meant is None else f" Do you mean {meant}?"


async def _handle_validation(_request: Request, error: Exception) -> Response:
    """Answer for parameters of a path or query that FastAPI itself checks."""
    details = error.errors() if isinstance(error, RequestValidationError) else []
    path = ".".join(str(step) for step in details[0]["loc"][1:]) if details else None
    reason = str(details[0]["msg"]) if details else "The request is not valid"
    return error_response(BadRequestError(f"{path}: {reason}." if path else f"{reason}.", param=path))


def _response(error: ApiError, headers: Mapping[str, str]) -> Response:
    current_record().error_code = str(error.code)
    return Response(
        orjson.dumps(error.body()), status_code=error.status, headers=dict(headers), media_type="application/json"
    )
