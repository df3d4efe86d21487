"""Sender-constrained tokens: check that the presenter is the party that the token was issued to.

There are three bindings. `x5t#S256` in `cnf` is the digest of the peer's certificate (RFC 8705 section 3.1). `jkt` in
`cnf` is the thumbprint of a DPoP proof's key (RFC 9449 section 6.1). `sub` is the peer's SPIFFE ID. The TLS handshake
with the proxy has proved that the peer holds its certificate's key, so equality is enough.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

from zta_authz.authn.encoding import base64url_decode, base64url_encode
from zta_authz.authn.token import Confirmation
from zta_authz.errors import Reason, Refused, quoted
from zta_authz.model.identity import Binding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.authn.token import VerifiedToken
    from zta_authz.model.identity import Peer

_SHA256_BYTES: Final = 32


def read_confirmation(claims: Mapping[str, Any]) -> Confirmation | None:
    """Read the token's `cnf`, None if absent. Raises `Refused` if it is malformed."""
    if "cnf" not in claims:
        return None
    cnf = claims["cnf"]
    if not isinstance(cnf, dict):
        raise Refused(Reason.TOKEN_CLAIM_INVALID, "`cnf` is not an object")
    return Confirmation(_digest(cnf, "x5t#S256"), base64url_encode(_digest(cnf, "jkt")))


def _digest(cnf: Mapping[str, Any], member: str) -> bytes:
    """Decode a SHA-256 in base64url; b"" if the member is absent.

    Non-zero trailing bits are allowed: the example in RFC 8705 section 3.1 has them, and digests are compared as bytes.
    """
    if member not in cnf:
        return b""
    text = cnf[member]
    try:
        digest = base64url_decode(text, canonical=False) if isinstance(text, str) and "=" not in text else b""
    except ValueError:
        digest = b""
    if len(digest) != _SHA256_BYTES:
        raise Refused(Reason.TOKEN_CLAIM_INVALID, f"`cnf` has a `{member}` that is not a SHA-256 in base64url")
    return digest


def check_binding(token: VerifiedToken, peer: Peer | None, proof_thumbprint: str, *, strict: bool) -> Binding | None:
    """Return what binds the token to its presenter; None for a plain bearer token.

    `proof_thumbprint` is that of the key of a valid DPoP proof, "" without one. With strict semantics, raises `Refused`
    if the confirmation does not match or can't be checked: a bound token is never accepted as a bearer token.
    """
    confirmation = token.confirmation
    if confirmation is None:
        bound = peer is not None and peer.spiffe_id is not None and token.subject == peer.principal
        return Binding.SPIFFE_ID if bound else None
    mismatch = _mismatch(confirmation, peer, proof_thumbprint)
    if mismatch and strict:
        raise Refused(Reason.TOKEN_BINDING, mismatch)
    if mismatch:
        return None
    return Binding.CERTIFICATE if confirmation.certificate_sha256 else Binding.DPOP


def _mismatch(confirmation: Confirmation, peer: Peer | None, proof_thumbprint: str) -> str:
    """Why the confirmation does not match, "" if all of it does."""
    digest, thumbprint = confirmation.certificate_sha256, confirmation.key_thumbprint
    if not digest and not thumbprint:
        return "`cnf` names only what can't be checked here"
    if digest:
        presented = peer.certificate_sha256 if peer is not None else None
        if presented is None:
            return "the token is bound to a certificate, and none was verified"
        if not hmac.compare_digest(digest, presented):
            bound, actual = (quoted((base64url_encode(value),)) for value in (digest, presented))
            return f"the token is bound to the certificate {bound}, and the peer has {actual}"
    if thumbprint and not hmac.compare_digest(thumbprint.encode(), proof_thumbprint.encode()):
        return (
            "the token is bound to another key than the DPoP proof's" if proof_thumbprint else "there is no DPoP proof"
        )
    return ""
