"""The schemas by name: one for each kind, one for request files, and one that chooses by `kind`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.policy_tests import KIND as POLICY_TEST
from zta_authz.cli.schema import requirements, rules
from zta_authz.cli.schema.access import access_entitlement, access_grant
from zta_authz.cli.schema.building import DIALECT, Schema, fields, references, text
from zta_authz.cli.schema.credentials import api_key_set, issuer_policy, revocation_list, trust_bundle
from zta_authz.cli.schema.devices import device_inventory
from zta_authz.cli.schema.names import ALL, KINDS, PURPOSES, REQUEST
from zta_authz.cli.schema.policies import access_policy, resource_classification, trust_model
from zta_authz.cli.schema.requests import policy_test, request
from zta_authz.cli.schema.signals import signal_source
from zta_authz.policy.documents.spec import DRY_RUN_ANNOTATION, ZTA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

_SPECS: Final[dict[str, Callable[[], Schema]]] = {
    "AccessPolicy": access_policy,
    "TrustBundle": trust_bundle,
    "RevocationList": revocation_list,
    "IssuerPolicy": issuer_policy,
    "ApiKeySet": api_key_set,
    "TrustModel": trust_model,
    "DeviceInventory": device_inventory,
    "ResourceClassification": resource_classification,
    "AccessEntitlement": access_entitlement,
    "AccessGrant": access_grant,
    "SignalSource": signal_source,
}


def schema_for(name: str) -> Schema:
    """The complete schema `name`, one of `NAMES`."""
    if name == ALL:
        return _any_kind()
    root, parts = _root(name)
    return _complete(name, root, parts)


def _root(name: str) -> tuple[Schema, dict[str, Schema]]:
    """The schema of a document, and the schemas that it may refer to."""
    parts = rules.definitions() | requirements.definitions()
    if name == REQUEST:
        return request(), parts
    heading: dict[str, Schema] = {
        "apiVersion": {"description": "The version of the document's format.", "const": ZTA_VERSION},
        "kind": {"description": "The kind of the document.", "const": name},
    }
    if name == POLICY_TEST:
        properties, more = policy_test()
        required = ("apiVersion", "kind", "policies", "tests")
        return fields("Tests of policies.", heading | properties, required=required), parts | more
    spec = _SPECS[name]()
    status: Schema = {"description": "Written by controllers, and not read."}
    document = {**heading, "metadata": _metadata(), "spec": spec, "status": status}
    return fields(spec["description"], document, required=("apiVersion", "kind", "metadata", "spec")), parts


def _metadata() -> Schema:
    annotation = f"Annotations. `{DRY_RUN_ANNOTATION}` is refused, because these kinds are enforced despite it."
    strings: Schema = {"type": ["object", "null"], "additionalProperties": {"type": "string"}}
    namespace = text("The namespace. The workload's, from the settings, if absent.", examples=["default"])
    kubernetes = (
        "generateName",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "ownerReferences",
        "finalizers",
        "managedFields",
        "selfLink",
    )
    return fields(
        "Name and namespace, as Kubernetes has them.",
        {
            "name": text("The name; unique among the documents of this kind and namespace.", pattern="^[^/]+$"),
            "namespace": {**namespace, "type": ["string", "null"]},
            "labels": {**strings, "description": "Labels of the document."},
            "annotations": {
                **strings,
                "description": annotation,
                "propertyNames": {"not": {"const": DRY_RUN_ANNOTATION}},
            },
            **{name: {"description": "Written by Kubernetes, and not read."} for name in kubernetes},
        },
        required=("name",),
    )


def _complete(name: str, root: Schema, parts: dict[str, Schema]) -> Schema:
    used: dict[str, Schema] = {}
    missing = references(root)
    while missing:
        used |= {part: parts[part] for part in missing}
        missing = references(list(used.values())) - used.keys()
    definitions = {"$defs": dict(sorted(used.items()))} if used else {}
    return {"$schema": DIALECT, "title": f"{name} of zta-authz: {PURPOSES[name]}", **root, **definitions}


def _any_kind() -> Schema:
    """A schema that checks documents of our version, and accepts those of other versions as they are."""
    parts: dict[str, Schema] = {}
    roots: dict[str, Schema] = {}
    for name in KINDS:
        roots[name], more = _root(name)
        parts |= more
    version: Schema = {"apiVersion": {"const": ZTA_VERSION}}
    version_of_zta: Schema = {"properties": version, "required": ["apiVersion"]}
    chosen = [
        {
            "if": {"properties": {**version, "kind": {"const": name}}, "required": ["apiVersion", "kind"]},
            "then": {"$ref": f"#/$defs/{name}"},
        }
        for name in KINDS
    ]
    known: Schema = {"if": version_of_zta, "then": {"properties": {"kind": {"enum": list(KINDS)}}}}
    root: Schema = {
        "type": "object",
        "properties": {
            "apiVersion": text("The version of the document's format.", examples=[ZTA_VERSION]),
            "kind": text("The kind of the document.", examples=KINDS),
        },
        "required": ["apiVersion", "kind"],
        "allOf": [known, *chosen],
    }
    return _complete(ALL, root, parts | roots)
