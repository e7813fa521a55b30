"""``/docs``: the routes and request schemas as one page that needs no script, no style sheet and no other host."""

from __future__ import annotations

import html
import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font:14px/1.4 ui-monospace,monospace}pre{background:#f4f4f4;padding:1rem;overflow:auto}"
    "table{border-collapse:collapse;width:100%}td,th{border-top:1px solid #ccc;padding:.3rem;text-align:left;"
    "vertical-align:top}summary{cursor:pointer}"
)


@router.get("/docs")
async def docs_page(request: Request) -> HTMLResponse:
    """Return the page."""
    schema: dict[str, Any] = request.app.openapi()
    schemas = schema["components"]["schemas"]
    operations = "".join(
        _operation(method, path, operation, schemas)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    )
    title = html.escape(schema["info"]["title"])
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        f"<p>{html.escape(schema['info'].get('description', ''))} Machine-readable: "
        f"<a href=openapi.json>openapi.json</a>.</p>{operations}"
        f"<details><summary>All JSON Schemas</summary><pre>{_json(schemas)}</pre></details></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    summary = html.escape(operation.get("description") or operation.get("summary", ""))
    heading = f"<h2><code>{html.escape(method.upper())} {html.escape(path)}</code></h2><p>{summary}</p>"
    return heading + (_fields(schemas[_type_name(content["schema"])]) if "schema" in content else "")


def _fields(schema: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(name)}</code><td>{html.escape(_type_name(field))}"
        f"<td>{html.escape(field.get('description', ''))}"
        for name, field in schema.get("properties", {}).items()
    )
    return (
        f"<table><tr><th>field<th>type<th>note{rows}</table>"
        f"<details><summary>JSON Schema of the body</summary><pre>{_json(schema)}</pre></details>"
    )


def _json(value: object) -> str:
    return html.escape(json.dumps(value, indent=2))


def _type_name(field: dict[str, Any]) -> str:
    """Write a field's type in a few words."""
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[-1]
    if "const" in field:
        return json.dumps(field["const"])
    if "enum" in field:
        return ", ".join(json.dumps(value) for value in field["enum"])
    options = field.get("anyOf") or field.get("oneOf")
    if options:
        return " or ".join(_type_name(option) for option in options)
    if field.get("type") == "array":
        return f"list of {_type_name(field.get('items', {}))}"
    return str(field.get("type", "any"))
