"""One client with one key sends DPoP proofs as fast as it can: the proofs of others still fit the memory.

The control is a client that sends as many proofs as all honest ones together: none is refused.
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


def count_accepted(client: Signer, proofs: int, memory: ReplayMemory) -> int:
    """Count the accepted proofs; all others are refused because the memory is full."""
    subject, token, accepted = verifier(rule()), token_of(client), 0
    subject.share_replays(memory)
    for number in range(proofs):
        asked = asking(proof(client, token=token, jti=f"j{number}"), token=token)
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
    assert count_accepted(GREEDY, 3 * CAPACITY, attacked) == CAPACITY // 2
    assert count_accepted(GREEDY, len(HONEST) * 3, quiet) == len(HONEST) * 3
    for memory in (attacked, quiet):
        assert [count_accepted(client, 3, memory) for client in HONEST] == [3] * len(HONEST)
