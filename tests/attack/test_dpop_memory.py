"""One client with one key and a token of its own, proving as fast as it can: others still find room for their proofs.

The control is a client that proves as often as all honest ones together, and is refused nothing.
"""

from __future__ import annotations

from tests.support.pki import NOW, Signer
from tests.unit.authn.support import rule, verifier
from tests.unit.authn.test_dpop import asking, proof, token_of
from zta_authz.authn.dpop import ReplayMemory
from zta_authz.errors import Reason, Refused
from zta_authz.model.request import NO_EVIDENCE

CAPACITY = 120
HONEST = [Signer(kid="", number=5000 + number) for number in range(10)]
GREEDY = Signer(kid="", number=4999)


def taken(asker: Signer, proofs: int, memory: ReplayMemory) -> int:
    """How many of the client's proofs are accepted; all others are refused because there is no room for more."""
    subject, token, accepted = verifier(rule()), token_of(asker), 0
    subject.share_replays(memory)
    for number in range(proofs):
        asked = asking(proof(asker, token=token, jti=f"j{number}"), token=token)
        try:
            subject.verify(asked, NO_EVIDENCE, NOW)
        except Refused as refused:
            if refused.reason is not Reason.OVERLOADED:
                raise
        else:
            accepted += 1
    return accepted


def test_one_client_cannot_fill_the_memory_of_used_proofs() -> None:
    attacked, quiet = ReplayMemory(CAPACITY), ReplayMemory(CAPACITY)
    assert taken(GREEDY, 3 * CAPACITY, attacked) == CAPACITY // 2
    assert taken(GREEDY, len(HONEST) * 3, quiet) == len(HONEST) * 3
    for memory in (attacked, quiet):
        assert [taken(client, 3, memory) for client in HONEST] == [3] * len(HONEST)
