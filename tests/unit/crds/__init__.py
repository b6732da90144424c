"""The API server's verdict on a custom resource, by the schema that its project publishes.

One file a kind, named by it. A structural schema prunes what it does not know (apiextensions.k8s.io/v1), so a field
that would be dropped in silence is a mistake here.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

_KUBERNETES = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}


def known() -> set[str]:
    """The kinds whose schemas lie here."""
    return {file.stem for file in Path(__file__).parent.glob("*.yaml")}


def refusals(body: Mapping[str, Any]) -> list[str]:
    """What the API server would refuse or drop of a custom resource, each with its place; none when it fits."""
    version, validator = _published(body["kind"])
    wrong = [] if body["apiVersion"] == version else [f"apiVersion {body['apiVersion']} is not {version}"]
    return [*wrong, *(f"{each.json_path}: {each.message}" for each in validator.iter_errors(body))]


@cache
def _published(kind: str) -> tuple[str, Draft202012Validator]:
    published = yaml.safe_load(Path(__file__).with_name(f"{kind}.yaml").read_text())
    schema = published["schema"]
    whole = {**schema, "properties": {**_KUBERNETES, **schema["properties"]}}
    closed = _closed(whole)
    closed["properties"]["metadata"] = _KUBERNETES["metadata"]
    return published["apiVersion"], Draft202012Validator(closed)


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An OpenAPI v3 schema as JSON schema in which what is not known is refused.

    `oneOf` and its like hold conditions on values in a structural schema, never fields of their own.
    """
    made = dict(schema)
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if "properties" in schema:
        made["properties"] = {name: _closed(each) for name, each in schema["properties"].items()}
    if isinstance(schema.get("items"), dict):
        made["items"] = _closed(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _closed(schema["additionalProperties"])
    elif schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if schema.get("nullable"):
        made["type"] = [schema["type"], "null"]
        if "enum" in schema:
            made["enum"] = [*schema["enum"], None]
    return made
