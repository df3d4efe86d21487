"""Read `RequestAuthentication` (exactly Istio's JWT rules) and `TrustBundle` (SPIFFE authorities)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from zta_authz.errors import Fault
from zta_authz.model.documents import ClaimToHeader, FromHeader, JwtRule, RequestAuthentication, TrustBundle
from zta_authz.model.spiffe import TrustDomain
from zta_authz.policy.documents.authorization_policy import read_selector, targets
from zta_authz.policy.yaml.header_names import read_changed_header, read_header_name
from zta_authz.policy.yaml.nodes import Mapping, Node, Scalar, Sequence, to_plain
from zta_authz.policy.yaml.values import duration, flag, header_name, optional_text, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.policy.documents.spec import DocumentHeader, DocumentSet
    from zta_authz.policy.yaml.fields import Reader

MAX_JWT_RULES: Final = 4096
_ADDRESS: Final = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?(?:[/?][!-~]*)?")
_OUTPUT_CLAIM: Final = re.compile(r"[A-Za-z0-9_:/.\-]+")
_PRESENCE: Final = ("OPTIONAL", "REQUIRED")
_RULE_FIELDS: Final = (
    "issuer", "audiences", "jwksUri", "jwks_uri", "jwks", "fromHeaders", "fromParams", "fromCookies",
    "outputPayloadToHeader", "forwardOriginalToken", "outputClaimToHeaders", "timeout", "spaceDelimitedClaims",
    "presence",
)  # fmt: skip


def read_request_authentication(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the JWT rules to `documents`; for a document that only Istio can enforce, add a warning instead."""
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "RequestAuthentication.spec", ("selector", "targetRef", "targetRefs", "jwtRules"))
    selector = read_selector(header)
    skipped = targets(spec)
    if skipped:
        at = reader.position(header.document)
        message = f"RequestAuthentication `{header.namespace}/{header.name}` is not used here: {skipped}"
        warnings.append(Fault(at.source, at.line, at.column, message, "leave it to Istio and remove it here"))
        return
    node = spec.get("jwtRules")
    nodes = [] if node is None else reader.items(node, "jwtRules", "JWT rules")
    if node is not None and len(nodes) > MAX_JWT_RULES:
        message = f"{len(nodes)} JWT rules, more than the limit of {MAX_JWT_RULES} in one document"
        reader.fault(node, message, "split the document")
    rules = [rule for item in nodes if (rule := _jwt_rule(header, item)) is not None]
    warnings += [warning for item in nodes if isinstance(item, Mapping) for warning in _unused(reader, item)]
    documents.authentications.append(
        RequestAuthentication(header.name, header.namespace, reader.position(header.document), selector, tuple(rules))
    )


def _jwt_rule(header: DocumentHeader, node: Node) -> JwtRule | None:
    reader = header.reader
    rule = reader.mapping(node, "a JWT rule", _RULE_FIELDS)
    if rule is None:
        return None
    issuer = optional_text(reader, rule, "issuer")
    jwks, uri = optional_text(reader, rule, "jwks"), _jwks_uri(reader, rule)
    if jwks is not None and uri is not None:
        reader.fault(rule, "a JWT rule has both `jwks` and `jwksUri`", "remove one of the two")
    if rule.get("issuer") is None and jwks is None and uri is None:
        reader.fault(rule, "a JWT rule without `issuer` has no keys", "add `issuer`, or `jwksUri` to accept any issuer")
    jwks_node = rule.get("jwks")
    return JwtRule(
        policy=f"{header.namespace}/{header.name}",
        position=reader.position(rule),
        issuer=issuer or "",
        audiences=texts(reader, rule, "audiences"),
        jwks=jwks,
        jwks_uri=uri,
        jwks_position=None if jwks_node is None else reader.position(jwks_node),
        from_headers=tuple(_from_headers(reader, rule)),
        from_params=texts(reader, rule, "fromParams"),
        from_cookies=texts(reader, rule, "fromCookies"),
        output_payload_to_header=header_name(reader, rule, "outputPayloadToHeader"),
        output_claim_to_headers=tuple(_output_claims(reader, rule)),
        forward_original_token=flag(reader, rule, "forwardOriginalToken"),
        space_delimited_claims=texts(reader, rule, "spaceDelimitedClaims"),
        timeout_seconds=duration(reader, rule, "timeout", 5.0),
        required=_is_required(reader, rule),
    )


def _is_required(reader: Reader, rule: Mapping) -> bool:
    """Read `presence`, an Istio enumeration; OPTIONAL if absent."""
    text, node = optional_text(reader, rule, "presence"), rule.get("presence")
    if text is not None and node is not None and text not in _PRESENCE:
        reader.fault(node, f"unknown `presence` `{text}`", "write `REQUIRED` or `OPTIONAL`")
    return text == "REQUIRED"


def _unused(reader: Reader, rule: Mapping) -> Iterator[Fault]:
    """Warn about fields of a JWT rule that have no effect. They are not faults, because Istio accepts them."""
    timeout, claims = rule.get("timeout"), rule.get("outputClaimToHeaders")
    if timeout is not None and rule.get("jwks") is not None:
        at = reader.position(timeout)
        message = "`timeout` is for fetching keys, but this rule has its keys in `jwks`"
        yield Fault(at.source, at.line, at.column, message, "remove it")
    payload = rule.get("outputPayloadToHeader")
    seen = {payload.value.lower()} if isinstance(payload, Scalar) else set()
    for item in claims.items if isinstance(claims, Sequence) else ():
        name = item.get("header") if isinstance(item, Mapping) else None
        if isinstance(name, Scalar):
            if name.value.lower() in seen:
                at = reader.position(name)
                message = f"header `{name.value}` is set more than once by this rule"
                yield Fault(at.source, at.line, at.column, message, "give each claim a different header")
            seen.add(name.value.lower())


def _jwks_uri(reader: Reader, rule: Mapping) -> str | None:
    field = "jwksUri" if rule.get("jwksUri") is not None else "jwks_uri"
    uri, node = optional_text(reader, rule, field), rule.get(field)
    if uri is None or node is None:
        return None
    if not _ADDRESS.fullmatch(uri):
        reader.fault(node, f"`{field}` is not an HTTP or HTTPS URL", "write https://issuer.example/jwks.json")
    return uri


def _from_headers(reader: Reader, rule: Mapping) -> list[FromHeader]:
    node = rule.get("fromHeaders")
    headers = []
    for item in [] if node is None else reader.items(node, "fromHeaders", "headers"):
        entry = reader.mapping(item, "an entry of `fromHeaders`", ("name", "prefix"))
        name = None if entry is None else reader.required(entry, "name", "an entry of `fromHeaders`")
        if entry is None or name is None:
            continue
        prefix = entry.get("prefix")
        text = None if prefix is None else reader.string(prefix, "prefix", empty=True)
        headers.append(FromHeader(read_header_name(reader, name, "name") or "", text or ""))
    return headers


def _output_claims(reader: Reader, rule: Mapping) -> list[ClaimToHeader]:
    node = rule.get("outputClaimToHeaders")
    outputs = []
    for item in [] if node is None else reader.items(node, "outputClaimToHeaders", "claims"):
        entry = reader.mapping(item, "an entry of `outputClaimToHeaders`", ("header", "claim"))
        name = None if entry is None else reader.required(entry, "header", "an entry of `outputClaimToHeaders`")
        claim = None if entry is None else reader.required(entry, "claim", "an entry of `outputClaimToHeaders`")
        if name is None or claim is None:
            continue
        text = reader.string(claim, "claim") or ""
        if text and not _OUTPUT_CLAIM.fullmatch(text):
            reader.fault(claim, f"`{text}` is not a claim name", "use letters, digits, `_`, `-`, `:`, `/` and `.`")
        outputs.append(ClaimToHeader(read_changed_header(reader, name, "header") or "", text))
    return outputs


def read_trust_bundle(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the authorities of a trust domain to `documents`."""
    del warnings
    reader, spec = header.reader, header.spec
    fields = (
        "trustDomain",
        "x509Authorities",
        "x509Intermediates",
        "jwtAuthorities",
        "spiffeBundle",
        "jwtSvidAudiences",
    )
    reader.mapping(spec, "TrustBundle.spec", fields)
    domain_node = reader.required(spec, "trustDomain", "TrustBundle.spec")
    name = None if domain_node is None else reader.string(domain_node, "trustDomain")
    if domain_node is None or name is None:
        return
    try:
        domain = TrustDomain.parse(name)
    except ValueError as error:
        reader.fault(domain_node, f"`trustDomain` `{name}`: {error}", "write it like `cluster.local`")
        return
    x509, jwt, spiffe = spec.get("x509Authorities"), spec.get("jwtAuthorities"), spec.get("spiffeBundle")
    if x509 is None and jwt is None and spiffe is None:
        hint = "add `x509Authorities`, `jwtAuthorities` or `spiffeBundle`"
        reader.fault(spec, "the bundle has no authorities", hint)
    if spiffe is not None and (x509 is not None or jwt is not None):
        reader.fault(
            spiffe, "`spiffeBundle` already has all authorities", "remove `x509Authorities` and `jwtAuthorities`"
        )
    audiences = spec.get("jwtSvidAudiences")
    if audiences is not None and jwt is None and spiffe is None:
        reader.fault(audiences, "`jwtSvidAudiences` needs keys that sign JWT-SVIDs", "add `jwtAuthorities`")
    intermediates = spec.get("x509Intermediates")
    documents.bundles.append(
        TrustBundle(
            name=header.name,
            namespace=header.namespace,
            position=reader.position(header.document),
            trust_domain=domain,
            x509_authorities=optional_text(reader, spec, "x509Authorities") or "",
            x509_authorities_position=None if x509 is None else reader.position(x509),
            x509_intermediates=optional_text(reader, spec, "x509Intermediates") or "",
            x509_intermediates_position=None if intermediates is None else reader.position(intermediates),
            jwt_authorities=None if jwt is None else _key_set(reader, jwt),
            jwt_authorities_position=None if jwt is None else reader.position(jwt),
            spiffe_bundle=None if spiffe is None else _spiffe_bundle(reader, spiffe),
            spiffe_bundle_position=None if spiffe is None else reader.position(spiffe),
            jwt_svid_audiences=texts(reader, spec, "jwtSvidAudiences"),
        )
    )


def _spiffe_bundle(reader: Reader, node: Node) -> dict[str, Any] | str | None:
    """Read JSON text or a mapping; the verifier's compiler checks the content."""
    plain = to_plain(node)
    if isinstance(plain, dict) or (isinstance(plain, str) and plain):
        return plain
    reader.fault(node, "`spiffeBundle` is not a SPIFFE bundle", "write `keys:` with a list, or its JSON as text")
    return None


def _key_set(reader: Reader, node: Node) -> dict[str, Any] | None:
    plain = to_plain(node)
    if not isinstance(plain, dict) or not isinstance(plain.get("keys"), list):
        reader.fault(node, "`jwtAuthorities` is not a JSON Web Key Set", "write `keys:` with a list of keys (RFC 7517)")
        return None
    return plain
