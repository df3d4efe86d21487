"""Reading `zta.dev/v1` IssuerPolicy: limits on one issuer's tokens, beyond what Istio's JWT rules can say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.model.documents import IssuerPolicy
from zta_authz.policy.require import LONGEST_AGE
from zta_authz.policy.values import duration, flag, optional_text, texts

if TYPE_CHECKING:
    from zta_authz.errors import Fault
    from zta_authz.policy.spec import DocumentSet, Header

_LIMITS: Final = ("maxTokenAge", "allowMissingExp", "requireBound", "requireKid", "algorithms", "types")
_ASYMMETRIC: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
_ALGORITHMS: Final = (*_ASYMMETRIC, "HS256", "HS384", "HS512")


def read_issuer_policy(header: Header, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the policy to `documents`."""
    del warnings
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "IssuerPolicy.spec", ("issuer", *_LIMITS))
    reader.required(spec, "issuer", "IssuerPolicy.spec")
    if not any(spec.get(name) is not None for name in _LIMITS):
        reader.fault(spec, "the policy limits nothing", f"add one of {', '.join(_LIMITS)}")
    node = spec.get("algorithms")
    for item in [] if node is None else reader.strings(node, "algorithms"):
        if item.value not in _ALGORITHMS:
            reader.fault(item, f"`{item.value}` is not an algorithm we accept", f"one of {', '.join(_ALGORITHMS)}")
    documents.issuer_policies.append(
        IssuerPolicy(
            name=header.name,
            namespace=header.namespace,
            position=reader.position(header.document),
            issuer=optional_text(reader, spec, "issuer") or "",
            max_token_age=duration(reader, spec, "maxTokenAge", float("inf"), LONGEST_AGE),
            allow_missing_exp=flag(reader, spec, "allowMissingExp"),
            require_bound=flag(reader, spec, "requireBound"),
            require_kid=flag(reader, spec, "requireKid"),
            algorithms=texts(reader, spec, "algorithms") if node is not None else (),
            types=texts(reader, spec, "types"),
        )
    )
