"""Upstream's own YAML: custom resource definitions are taken as upstream wrote them, never retyped."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pulumi
import pulumi_kubernetes as k8s
import yaml

from infra.platform.settings import ManifestsMissingError

Manifest = dict[str, Any]  # One Kubernetes object as YAML has it: its shape depends on its kind.


def read(directory: Path, kind: str) -> list[Manifest]:
    """Every object of `kind` in the YAML files beneath `directory`, sorted by name.

    Errors: `ManifestsMissingError` when there is none.
    """
    files = sorted(path for path in directory.rglob("*") if path.suffix in (".yaml", ".yml"))
    found: dict[str, Manifest] = {}
    for path in files:
        text = path.read_text()
        if f"kind: {kind}" not in text:
            continue
        for document in cast(Iterable[Manifest | None], yaml.load_all(text, Loader=_LOADER)):
            if document and document.get("kind") == kind:
                found[document["metadata"]["name"]] = document
    if not found:
        raise ManifestsMissingError(f"{directory.name} ({kind})", (directory.parent,))
    return [found[name] for name in sorted(found)]


# libyaml reads Traefik's 200 kB of definitions in a fiftieth of the time.
_LOADER: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def definitions(
    directory: Path,
    opts: pulumi.ResourceOptions,
    *,
    leave_out: Iterable[str] = (),
    amend: Callable[[Manifest], Manifest] = lambda schema: schema,
) -> list[pulumi.Resource]:
    """Upstream's custom resource definitions in `directory`, but those of the names in `leave_out`.

    `amend` may mend the schema of each version, where upstream's is wrong.

    Left out as well: conversion by webhook (no object of an older version is ever made here, and no webhook runs), and
    what makes definitions big without being missed: descriptions, and schemas of whole pods, which Kubernetes checks
    anyway when a pod is made. A third is left of Pulumi's state, and of the time to look through it.
    """
    unwanted = frozenset(leave_out)
    found = read(directory, "CustomResourceDefinition")
    return [_definition(manifest, amend, opts) for manifest in found if manifest["metadata"]["name"] not in unwanted]


def _definition(
    manifest: Manifest, amend: Callable[[Manifest], Manifest], opts: pulumi.ResourceOptions
) -> pulumi.Resource:
    name = manifest["metadata"]["name"]
    spec = _shortened({key: value for key, value in manifest["spec"].items() if key != "conversion"})
    for version in spec["versions"]:
        version["schema"] = {"openAPIV3Schema": amend(version["schema"]["openAPIV3Schema"])}
    # Made as an untyped object, so that its schema passes through untouched.
    return k8s.apiextensions.CustomResource(
        name,
        api_version="apiextensions.k8s.io/v1",
        kind="CustomResourceDefinition",
        metadata=k8s.meta.v1.ObjectMetaArgs(name=name, annotations=manifest["metadata"].get("annotations")),
        spec=spec,
        opts=opts,
    )


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        items = cast(Manifest, value)
        properties = items.get("properties")
        if isinstance(properties, dict) and {"containers", "initContainers", "volumes"} <= properties.keys():
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        # A property may be called description; then it is a schema, not a text.
        texts = {key for key, inner in items.items() if key == "description" and isinstance(inner, str)}
        return {key: _shortened(inner) for key, inner in items.items() if key not in texts}
    if isinstance(value, list):
        return [_shortened(inner) for inner in cast(list[Any], value)]
    return value
