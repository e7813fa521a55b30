"""Schemas of the objects: the Kubernetes API's from kubernetes-validate, and the custom ones from ``tests/data/crds``.

Both are strict here: a field that the schema does not name is an error, as an API server only warns about it.
"""

from __future__ import annotations

import gzip
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from referencing import Registry, Resource

ROOT = Path(__file__).resolve().parents[2]
CUSTOM = ROOT / "tests" / "data" / "crds"
_BRANCHES = {"allOf", "anyOf", "oneOf", "not"}
_OTHER = {"properties", "format"}
BUILT_IN = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def problems(item: dict[str, Any], kubernetes: str) -> list[str]:
    """Return what is wrong with an object, each with its place."""
    found = _validator(item["apiVersion"], item["kind"], kubernetes).iter_errors(item)
    return [f"{item['kind']} {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in found]


@cache
def _validator(api_version: str, kind: str, kubernetes: str) -> Validator:
    custom = custom_schemas().get((api_version, kind))
    if custom is not None:
        return Draft202012Validator(_strict(custom, is_top=True))
    # The file names of the package: kind, group without its domain, version.
    group_version = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    path = BUILT_IN / f"v{kubernetes}-local-strict" / f"{kind.lower()}-{group_version}.json"
    assert path.exists(), f"there is no schema for {api_version} {kind} in Kubernetes {kubernetes}"
    return Draft202012Validator(json.loads(path.read_text()), registry=_definitions(kubernetes))


@cache
def _definitions(kubernetes: str) -> Registry[Any]:
    path = BUILT_IN / f"v{kubernetes}-local-strict" / "_definitions.json"
    return Resource.from_contents(json.loads(path.read_text())) @ Registry()


@cache
def custom_schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """Return the schemas of the custom kinds, by version and kind."""
    files = [read(path) for path in sorted(CUSTOM.glob("*.json*"))]
    return {(file["apiVersion"], file["kind"]): file["schema"] for file in files}


def read(path: Path) -> dict[str, Any]:
    """Return the content of a file of ``tests/data/crds``."""
    content = path.read_bytes()
    found: dict[str, Any] = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    return found


def _strict(schema: Any, is_top: bool = False) -> Any:
    """Turn a schema of a custom resource definition into one that allows no other fields."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {key: value if key in _BRANCHES else _strict(value) for key, value in schema.items() if key not in _OTHER}
    if "properties" in schema:
        strict["properties"] = {name: _strict(value) for name, value in schema["properties"].items()}
        if is_top:
            strict["properties"]["metadata"] = {"type": "object"}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            strict.setdefault("additionalProperties", False)
    return strict
