"""Verifiers, rules and requests for the tests of authentication. The defaults are valid; tests change one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pki import HERE, ISSUER, NOW, jwks
from zta_authz.authn.verify import IdentityVerifier, compile_verifier
from zta_authz.errors import Reason, Refused
from zta_authz.model.documents import JwtRule, RequestAuthentication, Selector, TrustBundle
from zta_authz.model.options import Options
from zta_authz.model.request import NO_EVIDENCE, Evidence, Headers, RequestAttributes
from zta_authz.model.spiffe import TrustDomain

if TYPE_CHECKING:
    from zta_authz.errors import Fault
    from zta_authz.model.identity import Identity

STRICT = Options()
ISTIO = Options.istio()


def rule(**changed: Any) -> JwtRule:
    """A rule for `ISSUER` with the key of `Signer()`."""
    defaults: dict[str, Any] = {"policy": "default/jwt", "position": HERE, "issuer": ISSUER, "jwks": jwks()}
    return JwtRule(**(defaults | changed))


def authentication(*rules: JwtRule, namespace: str = "default", **labels: str) -> RequestAuthentication:
    """A RequestAuthentication for workloads of `namespace` with `labels`."""
    return RequestAuthentication("jwt", namespace, HERE, Selector(namespace, labels), rules)


def bundle(authorities: str, domain: str = "cluster.local", **changed: Any) -> TrustBundle:
    """A TrustBundle of PEM text."""
    return replace(TrustBundle("bundle", "default", HERE, TrustDomain(domain), authorities), **changed)


def verifier(
    *rules: JwtRule,
    bundles: tuple[TrustBundle, ...] = (),
    options: Options = STRICT,
    faults: list[Fault] | None = None,
    **more: Any,
) -> IdentityVerifier:
    """Compile a verifier of one document with `rules`, and `more` kinds of documents.

    Without a list for `faults`, any fault fails the test.
    """
    reported: list[Fault] = []
    compiled = compile_verifier([authentication(*rules)] if rules else [], bundles, options, reported, **more)
    if faults is None:
        assert reported == []
    else:
        faults.extend(reported)
    return compiled


def request(
    path: str = "/", method: str = "GET", exact: bool = True, **headers: str | tuple[str, ...]
) -> RequestAttributes:
    """A request with `headers`; `_` in a name stands for `-`."""
    values = {
        header.replace("_", "-"): value if isinstance(value, tuple) else (value,) for header, value in headers.items()
    }
    return RequestAttributes(method=method, path=path, headers=Headers(values, exact=exact))


def bearer(token: str, **more: Any) -> RequestAttributes:
    """A request with `token` in Authorization."""
    return request(authorization=f"Bearer {token}", **more)


def refusal(
    subject: IdentityVerifier, asked: RequestAttributes, evidence: Evidence = NO_EVIDENCE, now: float = NOW
) -> Reason:
    """Return the reason of the refusal; the test fails if `subject` accepts."""
    with pytest.raises(Refused) as caught:
        subject.verify(asked, evidence, now)
    return caught.value.reason


def accept(
    subject: IdentityVerifier, asked: RequestAttributes, evidence: Evidence = NO_EVIDENCE, now: float = NOW
) -> Identity:
    """Return the accepted identity."""
    return subject.verify(asked, evidence, now)
