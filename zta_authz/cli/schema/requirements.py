"""Schemas of `require`: what a rule asks of token, login, device, network and trust."""

from __future__ import annotations

from typing import Final

from zta_authz.cli.schema.access import grant_requirement
from zta_authz.cli.schema.building import (
    Schema,
    duration,
    fields,
    flag,
    listed,
    number,
    table,
    text,
    texts,
    whole,
    word,
)
from zta_authz.policy.rules.fact_clauses import COUNTRY, FIELD_NAME, LONGEST_SEEN, MAX_ASN, MAX_VALUES
from zta_authz.policy.rules.require import LONGEST_AGE
from zta_authz.policy.rules.require_authentication import ACR, LONGEST_LOGIN_AGE, MAX_ACR_VALUES, MAX_LEVEL, MAX_LOGIN
from zta_authz.policy.rules.require_trust import COMPONENTS, LEVELS

_VERSION: Final = "^[0-9.]*[0-9][0-9.]*$"
_LOGIN: Final = r"^(?:https?://|/(?![/\\]))[!-~]*$"
_MEASURES: Final = {
    "user": "the user",
    "device": "the device",
    "network": "the network",
    "behavior": "the caller's behavior",
}


def _token() -> Schema:
    bound = {
        "description": "The token is bound to its presenter: by its certificate, a DPoP key or its SPIFFE ID.",
        "const": True,
    }
    age = duration("The token was issued at most this long ago.", LONGEST_AGE, example="15m")
    return {**fields("Requirements on the verified token.", {"bound": bound, "maxAge": age}), "minProperties": 1}


def _login() -> dict[str, Schema]:
    return {
        "acr": texts("Accepted values of the claim `acr`.", pattern=whole(ACR), most=MAX_ACR_VALUES, examples=["phr"]),
        "maxAge": duration(
            "The login (claim `auth_time`) is at most this long ago, in whole seconds.", LONGEST_LOGIN_AGE
        ),
        "login": text(
            "Where browsers log in: a URL or a path. `{path}` in its query stands for the requested path.",
            pattern=_LOGIN,
            most=MAX_LOGIN,
            examples=["/login?return_to={path}"],
        ),
    }


def _authentication() -> Schema:
    properties = {
        **_login(),
        "acrAtLeast": number("The least level of the token's `acr`; an IssuerPolicy gives the levels.", 0, MAX_LEVEL),
        "amr": texts(
            "One of these methods is in the claim `amr`.", pattern=whole(ACR), most=MAX_ACR_VALUES, examples=["hwk"]
        ),
    }
    asked = ("acr", "acrAtLeast", "amr", "maxAge")
    return fields("How strongly and how recently the user logged in.", properties, one_of=asked)


def _device() -> Schema:
    versions = table(
        "The least version of each operating system.",
        {"type": "string", "pattern": _VERSION},
    )
    schema = fields(
        "Facts of the device. Names besides those listed are boolean fields of the inventory, such as `compliant`. An "
        "unknown fact satisfies nothing.",
        {
            "osAtLeast": {**versions, "minProperties": 1, "examples": [{"macOS": "26.1"}]},
            "seenWithin": duration("The device reported at most this long ago.", LONGEST_SEEN, example="24h"),
            "managed": {"description": "The device is managed.", "type": "boolean"},
            "encrypted": {"description": "The device's disk is encrypted.", "type": "boolean"},
        },
    )
    names = {"pattern": whole(FIELD_NAME)}
    return {**schema, "additionalProperties": {"type": "boolean"}, "propertyNames": names, "minProperties": 1}


def country_codes(description: str, most: int | None = MAX_VALUES) -> Schema:
    """A list of ISO 3166-1 codes."""
    hint = "ISO 3166-1 codes of two capital letters. Quote `NO`."
    return texts(f"{description} {hint}", pattern=whole(COUNTRY), most=most, examples=["DE"])


def _network() -> Schema:
    asn: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_ASN}
    properties: dict[str, Schema] = {
        "countries": country_codes("The client's address is in one of these countries."),
        "notCountries": country_codes("The client's address is in a known country, and in none of these."),
        "asns": {
            **listed("The client's address is in one of these autonomous systems.", asn, MAX_VALUES),
            "examples": [[64500]],
        },
        "corporate": {"description": "Whether the client's address is in a corporate range.", "type": "boolean"},
        "anonymous": {"description": "Whether the client's address is of an anonymizing network.", "type": "boolean"},
        "reputationAtLeast": number("The least reputation of the client's address.", 0, 100),
    }
    return {
        **fields("Facts of the client's network. An unknown fact satisfies nothing.", properties),
        "minProperties": 1,
    }


def demand(description: str, more: dict[str, Schema] | None = None) -> Schema:
    """A least trust level and least scores of components."""
    level = word("The least trust level.", LEVELS)
    scores = {name: number(f"The least score of {_MEASURES[name]}.", 0, 100) for name in COMPONENTS}
    properties = {"level": level, **scores, **(more or {})}
    return fields(description, properties, one_of=("level", *COMPONENTS))


def _trust() -> Schema:
    step_up = fields(
        "The login that counts as one with several factors. Callers who only lack it are asked for it.",
        _login(),
        one_of=("acr", "maxAge"),
    )
    shown = flag("Whether a denial names the components that are too low.")
    more = {"stepUp": step_up, "showComponents": shown}
    return demand("The least trust that the TrustModel of the workload must find.", more)


def definitions() -> dict[str, Schema]:
    """The shared schemas of this module, by name."""
    properties = {
        "token": _token(),
        "authentication": _authentication(),
        "device": _device(),
        "network": _network(),
        "trust": _trust(),
        "grant": grant_requirement(),
    }
    require = fields("What must hold besides the rule's clauses. Not for DENY policies.", properties)
    return {"require": {**require, "minProperties": 1}, "demand": demand("The least trust for this class.")}
