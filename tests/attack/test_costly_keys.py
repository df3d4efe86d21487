"""Costly RSA keys chosen by senders: refusing one takes about the CPU time of verifying an honest one.

The control is the same request with an ordinary exponent. `TOLERANCE` is for slow, shared machines.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from jwt.algorithms import RSAAlgorithm

from tests.support.pki import FRONTEND, NOW, Signer, long_exponent_key, presented, private_key, root
from tests.unit.authn.support import bundle, request, rule, verifier
from tests.unit.authn.test_dpop import own_key
from zta_authz.authn.keys import parse_jwks
from zta_authz.errors import Reason, Refused
from zta_authz.model.request import NO_EVIDENCE, Evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.model.request import RequestAttributes

ROUNDS = 5
TOLERANCE = 8
CLIENT = Signer("PS256", "", "RSA-3072", 77)


def seconds(act: Callable[[], object]) -> float:
    """CPU seconds of `act`: the minimum of several rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        act()
        times.append(time.process_time() - start)
    return min(times)


def test_a_proof_by_a_key_with_a_long_exponent_costs_no_more_than_an_honest_one() -> None:
    subject = verifier(rule())
    long = RSAAlgorithm.to_jwk(long_exponent_key().public_key(), as_dict=True)
    honest, attack = own_key(CLIENT), own_key(CLIENT, n=long["n"], e=long["e"])

    def ask(asked: RequestAttributes) -> Reason | None:
        try:
            subject.verify(asked, NO_EVIDENCE, NOW, trial=True)
        except Refused as refused:
            return refused.reason
        return None

    assert ask(honest) is None
    assert ask(attack) is Reason.DPOP_INVALID
    assert seconds(lambda: ask(attack)) < TOLERANCE * seconds(lambda: ask(honest))


def test_an_intermediate_with_a_long_exponent_costs_no_more_than_an_honest_one() -> None:
    """A client chooses the intermediates that it presents, and one may have signed its leaf."""
    authority = root()
    evidence = {}
    for name, key in (("honest", private_key("RSA-3072")), ("long", long_exponent_key())):
        middle = authority.intermediate("middle", key=key)
        evidence[name] = Evidence(FRONTEND, presented(middle.issue(), *middle.above))

    def ask(name: str) -> Reason | None:
        try:
            verifier(bundles=(bundle(authority.pem),)).verify(request(), evidence[name], NOW)
        except Refused as refused:
            return refused.reason
        return None

    assert ask("honest") is None
    assert ask("long") is Reason.PEER_CERTIFICATE_WEAK
    assert seconds(lambda: ask("long")) < TOLERANCE * seconds(lambda: ask("honest"))


def test_no_key_with_a_long_exponent_is_loaded_and_reading_the_set_costs_no_more_than_an_honest_one() -> None:
    honest = [CLIENT.jwk(kid=str(number)) for number in range(100)]
    long = RSAAlgorithm.to_jwk(long_exponent_key().public_key(), as_dict=True)
    attack = [{**key, "n": long["n"], "e": long["e"]} for key in honest]
    texts = [json.dumps({"keys": keys}) for keys in (honest, attack)]
    keys, errors = parse_jwks(texts[1])
    assert (keys.keys, len(errors)) == ((), 100)
    assert len(parse_jwks(texts[0])[0].keys) == 100
    assert seconds(lambda: parse_jwks(texts[1])) < TOLERANCE * seconds(lambda: parse_jwks(texts[0]))
