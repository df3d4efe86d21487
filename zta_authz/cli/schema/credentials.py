"""Schemas of the documents on credentials: TrustBundle, IssuerPolicy, ApiKeySet, RevocationList."""

from __future__ import annotations

from typing import Final

from zta_authz.cli.schema.building import (
    Schema,
    duration,
    exactly_one,
    fields,
    flag,
    listed,
    moment,
    not_both,
    shared,
    text,
    texts,
    whole,
)
from zta_authz.cli.schema.policies import acr_levels
from zta_authz.cli.schema.rules import SPIFFE_ID
from zta_authz.model.spiffe import TRUST_DOMAIN
from zta_authz.policy.documents.credentials import ALGORITHMS, KEY_HASH, LIMITS
from zta_authz.policy.documents.revocation_list import HEX, SECTIONS
from zta_authz.policy.rules.require import LONGEST_AGE
from zta_authz.policy.yaml.header_names import HEADER_NAME

_SHA256: Final = "^[0-9A-Fa-f]{2}(?::?[0-9A-Fa-f]{2}){31}$"
_AUTHORITIES: Final = ("x509Authorities", "jwtAuthorities", "spiffeBundle")


def trust_bundle() -> Schema:
    """The schema of a TrustBundle's `spec`."""
    keys: Schema = {
        "description": "The keys that sign JWT-SVIDs: a JSON Web Key Set (RFC 7517).",
        "type": "object",
        "properties": {"keys": _keys("kty")},
        "required": ["keys"],
    }
    bundle: Schema = {
        "description": "A SPIFFE bundle: a mapping, or its JSON as text. Excludes the other authorities.",
        "type": ["object", "string"],
        "minLength": 1,
        "properties": {"keys": _keys("use")},
        "required": ["keys"],
    }
    schema = fields(
        "The authorities of one SPIFFE trust domain.",
        {
            "trustDomain": text("The trust domain.", pattern=whole(TRUST_DOMAIN), examples=["cluster.local"]),
            "x509Authorities": text("Certificates of the authorities that sign X.509-SVIDs, in PEM."),
            "x509Intermediates": text("Certificates of intermediates that peers do not send, in PEM."),
            "jwtAuthorities": keys,
            "spiffeBundle": bundle,
            "jwtSvidAudiences": texts("Audiences of the JWT-SVIDs to accept. Needs keys.", examples=["hatshop"]),
        },
        required=("trustDomain",),
        one_of=_AUTHORITIES,
    )
    return not_both(schema, ("spiffeBundle", "x509Authorities"), ("spiffeBundle", "jwtAuthorities"))


def _keys(required: str) -> Schema:
    names = {name: {"type": "string"} for name in ("kty", "kid", "use")}
    key: Schema = {"type": "object", "properties": names, "required": [required]}
    return {"description": "The keys.", "type": "array", "items": key}


def issuer_policy() -> Schema:
    """The schema of an IssuerPolicy's `spec`."""
    algorithms: Schema = {"enum": list(ALGORITHMS)}
    return fields(
        "Limits on the tokens of one issuer.",
        {
            "issuer": text("The issuer, as in the claim `iss`.", examples=["https://issuer.example"]),
            "maxTokenAge": duration("Deny tokens that were issued longer ago.", LONGEST_AGE, example="1h"),
            "allowMissingExp": flag("Accept tokens without `exp`."),
            "requireBound": flag("Deny tokens that are not bound to their presenter."),
            "requireKid": flag("Deny tokens without a key id (`kid`)."),
            "algorithms": listed("Accept only these signature algorithms.", algorithms),
            "types": texts("Accept only these values of the header `typ`.", examples=["at+jwt"]),
            "audiences": texts("Accept only tokens for one of these audiences.", examples=["hatshop"]),
            "acrLevels": acr_levels(),
        },
        required=("issuer",),
        one_of=LIMITS,
    )


def api_key_set() -> Schema:
    """The schema of an ApiKeySet's `spec`."""
    key = fields(
        "A key. Of a key only the digest is written.",
        {
            "hash": text("`sha256:` and 64 hex digits, or `sha512:` and 128.", pattern=whole(KEY_HASH)),
            "notBefore": moment("Not accepted before this time."),
            "expiresAt": moment("Not accepted from this time on; later than `notBefore`."),
            "comment": text("A note for readers of the document."),
        },
        required=("hash",),
    )
    client = fields(
        "A client program.",
        {
            "name": text(
                "The client's name, for `zta.apiClient`; unique in the document.", examples=["nightly-report"]
            ),
            "scopes": texts("What it may do, for `zta.apiScopes`.", pattern=r"^\S+$", examples=["orders:read"]),
            "keys": listed("Its keys; several during a rotation.", key),
        },
        required=("name", "keys"),
    )
    return fields(
        "Client programs and their API keys.",
        {
            "selector": shared("selector"),
            "header": {
                **text(
                    "The header with the key. Not one that clients use for other credentials.",
                    pattern=whole(HEADER_NAME),
                ),
                "default": "x-api-key",
            },
            "forward": flag("Forward the header to the application."),
            "clients": listed("The clients.", client),
        },
        required=("clients",),
    )


def revocation_list() -> Schema:
    """The schema of a RevocationList's `spec`."""
    before = {"before": moment("Revokes only what was issued before this time.")}
    serial = text("The serial number in hex, as `openssl x509` prints it, in quotes.", pattern=whole(HEX))
    digest = text("The SHA-256 of the certificate in hex, in quotes.", pattern=_SHA256)
    spiffe = "A SPIFFE ID like `spiffe://cluster.local/ns/shop/sa/frontend`."
    named = {
        "tokens": _entry(_named("id", "The token's `jti`."), "id"),
        "keys": _entry(_named("id", "The key's id (`kid`).") | before, "id", "issuer"),
        "subjects": _entry(_named("subject", "The subject, as in the claim `sub`.") | before, "subject", "issuer"),
        "certificates": exactly_one(_entry({"serial": serial, "sha256": digest}), "serial", "sha256"),
        "spiffeIds": exactly_one(
            _entry(
                {
                    "id": text(spiffe, pattern=f"{SPIFFE_ID}$"),
                    "prefix": text("The begin of SPIFFE IDs; ends with `/`.", pattern=f"{SPIFFE_ID}/$"),
                }
                | before
            ),
            "id",
            "prefix",
        ),
    }
    sections = {name: listed(f"Revoked {_PLURALS[name]}.", named[name]) for name in SECTIONS}
    comment = text("A note that every entry without its own has in the log.")
    return fields("Revoked credentials.", {**sections, "comment": comment}, one_of=SECTIONS)


_PLURALS: Final = {
    "tokens": "tokens",
    "keys": "signing keys of an issuer",
    "subjects": "subjects of an issuer",
    "certificates": "certificates",
    "spiffeIds": "SPIFFE IDs",
}


def _named(field: str, description: str) -> dict[str, Schema]:
    return {field: text(description), "issuer": text("Only of this issuer, as in the claim `iss`.")}


def _entry(properties: dict[str, Schema], *required: str) -> Schema:
    shared_fields = {
        "effectiveFrom": moment("Not revoked before this time."),
        "comment": text("A note that the log shows."),
    }
    return fields("A revoked credential.", properties | shared_fields, required=required)
