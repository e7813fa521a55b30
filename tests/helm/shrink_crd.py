"""Makes a file of ``tests/data/crds``: ``python -m tests.helm.shrink_crd SOURCE VERSION OUT < CRD.yaml``.

What a validator here cannot use goes: descriptions, defaults, CEL rules, the status, and hints for merging lists.
Nothing else is left out, so a field that the file does not name is one that the cluster does not know.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

_UNUSED = {
    "description", "default", "title", "example", "x-kubernetes-validations", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type",
}  # fmt: skip


def shrunk(schema: Any) -> Any:
    """Return a schema without what is not used; names of fields are no keywords."""
    if isinstance(schema, list):
        return [shrunk(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: shrunk(value) for key, value in schema.items() if key not in _UNUSED and key != "properties"}
    if "properties" in schema:
        kept["properties"] = {name: shrunk(value) for name, value in schema["properties"].items()}
    return dict(sorted(kept.items()))


def main() -> None:
    """Read the definition, and write the schema of its stored version."""
    source, version, out = sys.argv[1:]
    documents = [document for document in yaml.load_all(sys.stdin, yaml.CSafeLoader) if document]
    (spec,) = [one["spec"] for one in documents if one["kind"] == "CustomResourceDefinition"]
    (stored,) = [one for one in spec["versions"] if one["storage"]]
    schema = shrunk(stored["schema"]["openAPIV3Schema"])
    schema["properties"].pop("status", None)
    head = {
        "source": source,
        "version": version,
        "licence": "Apache-2.0",
        "kind": spec["names"]["kind"],
        "apiVersion": f"{spec['group']}/{stored['name']}",
    }
    lines = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
    lines.append(f'"schema": {json.dumps(schema, separators=(",", ":"))}')
    content = ("{\n " + ",\n ".join(lines) + "\n}\n").encode()
    Path(out).write_bytes(gzip.compress(content, 9, mtime=0) if out.endswith(".gz") else content)


if __name__ == "__main__":
    main()
