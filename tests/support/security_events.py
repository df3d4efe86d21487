"""Signs security events, and describes their source. The defaults are valid at `NOW`; tests change one at a time."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.support.pki import HERE, NOW, Signer, jwks
from zta_authz.authn.keys import parse_jwks
from zta_authz.model.signal_documents import CAEP, DEFAULT_ACTIONS, SignalSource, SubjectMapping
from zta_authz.security_events.set_verifier import verify_set

if TYPE_CHECKING:
    from zta_authz.security_events.set_verifier import SecurityEvent

IDP = "https://idp.example.com/"
RECEIVER = "https://authz.example.com/signals"
SESSION_REVOKED = CAEP + "session-revoked"
ALICE = {"format": "iss_sub", "iss": IDP, "sub": "alice"}
SIGNER = Signer(alg="RS256", kid="idp-1", kind="RSA-2048")
KEYS = parse_jwks(jwks([SIGNER]))[0]
HEADER = {"alg": "RS256", "kid": "idp-1", "typ": "secevent+jwt"}
_numbers = itertools.count()


def claims(**changed: Any) -> dict[str, Any]:
    """The claims of a session-revoked for alice; None removes one. The `jti` is fresh each time."""
    valid = {
        "iss": IDP,
        "jti": f"set-{next(_numbers)}",
        "iat": int(NOW) - 5,
        "aud": RECEIVER,
        "txn": "8675309",
        "sub_id": ALICE,
        "events": {SESSION_REVOKED: {"event_timestamp": int(NOW) - 10}},
    }
    return {name: value for name, value in (valid | changed).items() if value is not None}


def signed(payload: dict[str, Any], header: dict[str, Any] | None = None, signer: Signer = SIGNER) -> bytes:
    """A SET of exactly these claims."""
    head = {name: value for name, value in (HEADER | (header or {})).items() if value is not None}
    return signer.compact(json.dumps(head), json.dumps(payload)).encode()


def verified(**changed: Any) -> SecurityEvent:
    """The verified event of `claims` with these changes."""
    return verify_set(signed(claims(**changed)), IDP, (RECEIVER,), KEYS, NOW)


def event(kind: str, subject: Any = None, **values: Any) -> SecurityEvent:
    """A verified event of type `kind` (a URI) about `subject` (alice unless given), ten seconds ago."""
    values = {"event_timestamp": int(NOW) - 10} | values
    return verified(sub_id=subject or ALICE, events={kind: values})


def source(**changed: Any) -> SignalSource:
    """The document of the transmitter; `subjects` may be a mapping of what differs."""
    subjects = replace(SubjectMapping((IDP,)), **changed.pop("subjects", {}))
    made = SignalSource("idp", "istio-system", HERE, IDP, subjects, DEFAULT_ACTIONS, (RECEIVER,), IDP + "keys")
    return replace(made, **changed)
