"""Schemas of request files and of PolicyTest documents."""

from __future__ import annotations

from typing import Any, Final

from zta_authz.authn.jwt_limits import MAX_TIME
from zta_authz.cli.fact_arguments import NETWORK_FACTS
from zta_authz.cli.policy_tests import OPTION_FIELDS
from zta_authz.cli.request_files import HEADER_NAME, TIME_CLAIMS
from zta_authz.cli.schema.building import (
    MOMENT,
    Schema,
    fields,
    labels,
    listed,
    moment,
    shared,
    table,
    text,
    texts,
    whole,
    word,
)
from zta_authz.errors import DENIAL_RESPONSES, Reason
from zta_authz.model.decision import Verdict
from zta_authz.model.facts import Unknown
from zta_authz.model.signal_documents import RiskLevel
from zta_authz.model.trust import TrustLevel
from zta_authz.policy.rules.fact_clauses import COUNTRY
from zta_authz.policy.rules.fact_values import LAST_SEEN
from zta_authz.policy.rules.require_trust import COMPONENTS

_TIME: Final = "The time of the decisions."
_OPTIONS: Final = {
    "semantics": "How policies are interpreted.",
    "default_action": "The decision where no ALLOW policy selects the workload.",
    "workload": "The workload that requests go to.",
    "workloads": "The workloads of a shared authorizer.",
    "gateways": "Proxies that may name a workload.",
    "root_namespace": "The namespace whose policies apply to every workload.",
    "peer": "How the peer's identity is verified.",
    "client_address": "How the client's address is found.",
    "paths": "Paths that two parties may read differently.",
}


def request() -> Schema:
    """The schema of a request file."""
    claim = {"description": "A claim of the token.", "type": "string"}
    time: Schema = {
        "description": "Seconds since the epoch.",
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": MAX_TIME,
    }
    claims = {name: dict(claim) for name in ("iss", "sub", "jti")} | {name: dict(time) for name in TIME_CLAIMS}
    texts_of = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    repeated = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    values: Schema = {"type": "object", "additionalProperties": {"type": "object"}}
    return fields(
        "A request to decide. Every field is optional.",
        {
            "method": text("The HTTP method. GET if absent."),
            "path": {"description": "The path with its query. `/` if absent.", "type": "string"},
            "host": {"description": "The host.", "type": "string"},
            "scheme": text("The scheme.", examples=["https"]),
            "headers": table(
                "Values of headers; a list for a repeated header.", repeated, names={"pattern": whole(HEADER_NAME)}
            ),
            "source": _address("The address of the direct peer."),
            "destination": _address("The address that the request was sent to."),
            "sni": text("The server name of the TLS session."),
            "principal": text("The peer's SPIFFE ID; without `certificate` assumed to be verified."),
            "certificate": text("The peer's certificate: PEM, or the name of a PEM file. It is verified."),
            "token": text("A token, sent as `authorization: Bearer`. It is verified."),
            "claims": {
                "description": "The payload of a token that is assumed to be verified. Excludes `token`.",
                "type": "object",
                "properties": {**claims, "aud": {"description": "The audiences.", **texts_of}},
            },
            "facts": _facts(),
            "caller": text("The SPIFFE ID of the proxy that asks."),
            "destinationPrincipal": text("The SPIFFE ID of the workload, where several share an authorizer."),
            "contextExtensions": labels("Context extensions of the proxy."),
            "metadata": {"description": "Dynamic metadata by name of the filter.", **values},
        },
    )


def _address(description: str) -> Schema:
    port: Schema = {"description": "The port.", "type": "integer", "minimum": 0, "maximum": 65535}
    return fields(description, {"ip": text("The IP address.", examples=["10.0.0.1"]), "port": port})


def _facts() -> Schema:
    unknown = {"enum": [str(state) for state in Unknown]}
    kinds: dict[type, Schema] = {
        str: {"type": "string", "pattern": whole(COUNTRY)},
        int: {"type": "integer"},
        bool: {"type": "boolean"},
    }
    network = {
        name: {"description": f"The fact `{name}`, or why it is unknown.", "anyOf": [kinds[kind], unknown]}
        for name, kind in NETWORK_FACTS.items()
    }
    network["reputation"]["anyOf"] = [{"type": "integer", "minimum": 0, "maximum": 100}, unknown]
    value: Schema = {"type": ["string", "number", "boolean"]}
    device = table("Facts of the device: booleans of its inventory, `os`, `osVersion`, and the two below.", value)
    device["properties"] = {
        "id": text("The device's id."),
        LAST_SEEN: {
            "description": "The time of its last report: RFC 3339, or seconds since the epoch.",
            "anyOf": [{"type": "integer"}, {"type": "string", "pattern": MOMENT}, unknown],
        },
    }
    signals: dict[str, Schema] = {
        "risk": {
            "description": "The caller's risk by security events.",
            "enum": [*map(str, RiskLevel), *unknown["enum"]],
        },
        "assurance": {
            "description": "The assurance level by security events; empty without one.",
            "type": "string",
            "examples": ["NIST-AAL/nist-aal2"],
        },
    }
    signal_facts = fields("What security events say about the caller.", signals)
    network_facts = fields("Facts of the client's network.", network)
    described = "Facts that are assumed. Whatever is left out is absent."
    described_trust = "An assessment instead of the trust model's. A score that is left out is 0."
    trust = fields(described_trust, _assessment(), required=("level",))
    return fields(described, {"network": network_facts, "device": device, "signals": signal_facts, "trust": trust})


def _assessment() -> dict[str, Schema]:
    scores: dict[str, Schema] = {
        name: {"description": f"The score `{name}`.", "type": "number", "minimum": 0, "maximum": 100}
        for name in ("score", *COMPONENTS)
    }
    return {"level": word("The trust level.", TrustLevel.__members__), **scores}


def policy_test() -> tuple[Schema, dict[str, Schema]]:
    """The fields of a PolicyTest besides `apiVersion` and `kind`, and the schemas that they share."""
    options, more = _options()
    reasons = sorted(str(reason) for reason in Reason)
    expect = fields(
        "The decision that is expected. The other fields are not compared.",
        {
            "verdict": word("The verdict.", Verdict),
            "deny": word("Short for `verdict: deny` with this `reason`.", sorted(DENIAL_RESPONSES)),
            "reason": word("The reason code.", reasons),
            "policy": text("`namespace/name` of the policy that decides.", pattern="/", examples=["default/hatshop"]),
            "rule": {
                "description": "The name or the number of the rule that decides; the first is 0. Needs `policy`.",
                "anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}],
            },
            "trust": {**fields("The trust that the model finds.", _assessment()), "minProperties": 1},
            "acr": texts("The values of `acr` that the answer asks for.", examples=["phr"]),
            "mint": text("The audience of the token that is minted for the application.", examples=["orders.shop"]),
        },
        one_of=("verdict", "deny", "trust"),
    )
    expect["dependentRequired"] = {"rule": ["policy"]}
    expect["not"] = {"anyOf": [{"required": ["deny", "verdict"]}, {"required": ["deny", "reason"]}]}
    test = {
        "name": text("The test's name; unique in the document."),
        "request": shared("request"),
        "at": moment(_TIME),
        "expect": expect,
    }
    tests = listed("The tests.", fields("A test.", test, required=("name", "request", "expect")))
    properties: dict[str, Schema] = {
        "policies": texts("Files and directories with policies, relative to this file.", examples=["policies/"]),
        "options": options,
        "at": moment(_TIME),
        "tests": tests,
    }
    return properties, {"request": request(), **more}


def _options() -> tuple[Schema, dict[str, Schema]]:
    """The schema of `options`, made from that of the settings, and what it refers to."""
    from zta_authz.settings import Settings

    settings: dict[str, Any] = _untitled(Settings.model_json_schema())
    properties = {name: {"description": _OPTIONS[name], **settings["properties"][name]} for name in OPTION_FIELDS}
    return fields("Settings that change decisions, named as in the settings file.", properties), settings["$defs"]


def _untitled(schema: Any) -> Any:
    """The schema without the titles that pydantic derives from the names of fields."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _untitled(value) for name, value in schema.items() if name != "title" or not isinstance(value, str)}
