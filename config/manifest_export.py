"""Writes the manifest in NIM's form, and its JSON schema: ``python -m config.manifest_export [--schema [--check]]``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from config.manifest import Manifest, load_manifest

SCHEMA: Final = Path(__file__).with_name("profiles") / "manifest.schema.json"


def export_yaml(manifest: Manifest) -> str:
    """Return the manifest as YAML in the shape of NIM's second version; what is not known is left out."""
    document = manifest_record(manifest)
    text: str = yaml.dump(document, Dumper=yaml.SafeDumper, sort_keys=False, width=1000, allow_unicode=False)
    return text


def manifest_record(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as plain values."""
    return {
        "schema_version": manifest.schema_version,
        "profile_selection_criteria": manifest.profile_selection_criteria,
        "profiles": [profile.model_dump(mode="json", exclude_defaults=True) for profile in manifest.profiles],
    }


def schema_text() -> str:
    """Return the JSON schema of a manifest."""
    schema = Manifest.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"


def main() -> int:
    """Print the manifest, or write or check the schema; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schema", action="store_true", help="write the JSON schema beside the profiles")
    parser.add_argument("--check", action="store_true", help="with --schema: change nothing; fail if it is out of date")
    options = parser.parse_args()
    if not options.schema:
        sys.stdout.write(export_yaml(load_manifest()))
        return 0
    if not options.check:
        SCHEMA.write_text(schema_text(), encoding="utf-8")
    elif not SCHEMA.is_file() or SCHEMA.read_text(encoding="utf-8") != schema_text():
        sys.stderr.write(f"{SCHEMA.name} is out of date; run: python -m config.manifest_export --schema\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
