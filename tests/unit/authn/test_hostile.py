"""The number of hostile credentials in the tests, each with a valid twin that lacks only the one defect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.authn.test_api_keys import KEYS
from tests.unit.authn.test_binding import BINDINGS, LIMITS
from tests.unit.authn.test_dpop import PROOFS
from tests.unit.authn.test_jwt_svid import SVIDS
from tests.unit.authn.test_peers import INTERMEDIATES, LEAVES
from tests.unit.authn.test_revocation import PEERS as REVOKED_PEERS, TOKENS as REVOKED_TOKENS
from tests.unit.authn.test_token_verifier import TOKENS
from zta_authz.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Collection

TABLES: dict[str, Collection[str]] = {
    "tokens": TOKENS,
    "leaf certificates": LEAVES,
    "intermediates": INTERMEDIATES,
    "bindings": BINDINGS,
    "issuers' limits": LIMITS,
    "DPoP proofs": PROOFS,
    "API keys": KEYS,
    "JWT-SVIDs": SVIDS,
    "revoked tokens": REVOKED_TOKENS,
    "revoked peers": REVOKED_PEERS,
}


def test_at_least_150_hostile_credentials_have_a_case_with_a_twin() -> None:
    assert sum(len(table) for table in TABLES.values()) >= 150
    assert all(len(table) >= 8 for table in TABLES.values())


def test_every_reason_for_refused_evidence_has_a_case() -> None:
    covered = {
        case.reason
        for table in (TOKENS, LEAVES, INTERMEDIATES, BINDINGS, PROOFS, KEYS, SVIDS)
        for case in table.values()
    }
    covered |= {reason for reason, *_ in LIMITS.values()}
    of_evidence = {reason for reason in Reason if reason.startswith(("token_", "dpop_", "api_key_", "peer_"))}
    elsewhere = {  # in separate tests, because they need several credentials or none
        Reason.TOKEN_TOO_MANY,
        Reason.TOKEN_MISSING,
        Reason.TOKEN_REVOKED,
        Reason.PEER_REVOKED,
        Reason.DPOP_REPLAYED,
        Reason.PEER_CERTIFICATE_MISSING,
        Reason.PEER_CERTIFICATE_MALFORMED,
        Reason.PEER_CHAIN_TOO_LONG,
    }
    assert of_evidence - covered == elsewhere
