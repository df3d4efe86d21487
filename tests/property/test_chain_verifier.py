"""Certification paths against a second opinion: a path that zta-authz accepts, `cryptography.x509.verification` accepts too.

The cases follow x509-limbo's kinds (https://x509-limbo.com): path length, basic constraints, key usage, validity,
critical extensions, cross-signed and look-alike authorities. The certificates are made here.

Known differences, which is why only one direction is a law:
- zta-authz refuses any name constraints, and weak keys of authorities that the other verifier knows nothing about.
- The other verifier also demands what the profile of the Web PKI demands, such as authority key identifiers. The policy
  below permits what SPIFFE's profile leaves open, and demands what RFC 5280 does.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError
from hypothesis import given, settings, strategies as st

from tests.support.pki import CERTIFIES, HOUR, NOW, SIGNS, Authority, private_key, root
from zta_authz.authn.chain import find_path
from zta_authz.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.x509 import Certificate

CRITICAL_UNKNOWN = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)
HARMLESS_UNKNOWN = (CRITICAL_UNKNOWN[0], False)
PERMITTED = x509.NameConstraints([x509.UniformResourceIdentifier("cluster.local")], None)


@dataclass(frozen=True)
class Link:
    """One authority of a chain, as changes of a valid one."""

    ca: bool | None = True  # None: no basic constraints
    path_length: int | None = None
    certifies: bool | None = True  # None: no key usage
    expired: bool = False
    future: bool = False
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    wrong_key: bool = False

    def fields(self) -> dict[str, object]:
        """The fields of the certificate's profile."""
        length = self.path_length if self.ca else None
        return {
            "basic": None if self.ca is None else x509.BasicConstraints(ca=self.ca, path_length=length),
            "usage": None if self.certifies is None else (CERTIFIES if self.certifies else SIGNS),
            "not_before": NOW + HOUR if self.future else NOW - 100 * HOUR,
            "not_after": NOW - HOUR if self.expired and not self.future else NOW + 100 * HOUR,
            "extra": self.extra,
        }


ONE_DEFECT = (
    Link(ca=False),
    Link(ca=None),
    Link(path_length=0),
    Link(certifies=False),
    Link(expired=True),
    Link(future=True),
    Link(extra=(CRITICAL_UNKNOWN,)),
    Link(wrong_key=True),
)


def links() -> st.SearchStrategy[Link]:
    """Valid authorities, and authorities with one or two defects."""
    extras = st.sampled_from([(), (), (), (HARMLESS_UNKNOWN,), (CRITICAL_UNKNOWN,), ((PERMITTED, True),)])
    mostly = st.sampled_from([False] * 9 + [True])
    return st.one_of(
        st.just(Link()),
        st.sampled_from(ONE_DEFECT),
        st.builds(
            Link,
            ca=st.sampled_from([True] * 8 + [False, None]),
            path_length=st.sampled_from([None, None, 0, 1, 2]),
            certifies=st.sampled_from([True] * 8 + [False, None]),
            expired=mostly,
            future=mostly,
            extra=extras,
            wrong_key=mostly,
        ),
    )


def build(
    above: Sequence[Link], leaf_extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()
) -> tuple[Certificate, ...]:
    """Certificates of a chain, the leaf first and the anchor last. `above` starts with the anchor."""
    fields = above[0].fields()
    authority = root("anchor", **fields)
    chain = [authority.certificate]
    for number, link in enumerate(above[1:]):
        authority = authority.intermediate(f"intermediate {number}", **link.fields())
        chain.insert(0, authority.certificate)
        if link.wrong_key:
            authority = Authority(authority.certificate, private_key("P-256", 4711))
    return (authority.issue(extra=leaf_extra), *chain)


def we_accept(chain: Sequence[Certificate], anchor: Certificate, now: float = NOW) -> bool:
    try:
        find_path(chain[0], tuple(chain[1:]), (anchor,), now)
    except Refused:
        return False
    return True


def second_opinion(chain: Sequence[Certificate], anchor: Certificate, now: float = NOW) -> str:
    """Why the other verifier rejects the chain, "" if it accepts it."""
    of_ca = (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_certify)
    )
    of_leaf = ExtensionPolicy.permit_all().may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    verifier = (
        PolicyBuilder()
        .store(Store([anchor]))
        .time(datetime.datetime.fromtimestamp(now, datetime.UTC))
        .max_chain_depth(8)
        .extension_policies(ca_policy=of_ca, ee_policy=of_leaf)
        .build_client_verifier()
    )
    try:
        verifier.verify(chain[0], list(chain[1:]))
    except VerificationError as error:
        return str(error) or "rejected"
    return ""


def _may_certify(_policy: object, _certificate: object, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("no keyCertSign")


@settings(max_examples=150, deadline=None)
@given(st.lists(links(), min_size=1, max_size=4), st.sampled_from([(), (), (HARMLESS_UNKNOWN,), (CRITICAL_UNKNOWN,)]))
def test_a_path_that_we_accept_is_accepted_by_a_second_verifier(
    above: list[Link], leaf_extra: tuple[tuple[x509.ExtensionType, bool], ...]
) -> None:
    chain = build(above, leaf_extra)
    if we_accept(chain[:-1], chain[-1]):
        assert second_opinion(chain[:-1], chain[-1]) == ""


VALID: dict[str, list[Link]] = {
    "the anchor signs the leaf": [Link()],
    "one intermediate": [Link(), Link()],
    "a path length that suffices": [Link(path_length=1), Link(path_length=0)],
    "an extension that is not critical": [Link(), Link(extra=(HARMLESS_UNKNOWN,))],
}
INVALID: dict[str, list[Link]] = {
    "a path length of 0 above an intermediate": [Link(path_length=0), Link()],
    "a path length of 0 in an intermediate": [Link(), Link(path_length=0), Link()],
    "an intermediate that is not a CA": [Link(), Link(ca=False)],
    "an intermediate without basic constraints": [Link(), Link(ca=None)],
    "an intermediate that may not sign certificates": [Link(), Link(certifies=False)],
    "an expired intermediate": [Link(), Link(expired=True)],
    "an intermediate that is not yet valid": [Link(), Link(future=True)],
    "an unknown critical extension in an intermediate": [Link(), Link(extra=(CRITICAL_UNKNOWN,))],
    "a signature by another key of an authority of that name": [Link(), Link(wrong_key=True)],
}


@pytest.mark.parametrize("above", VALID.values(), ids=VALID)
def test_both_accept(above: list[Link]) -> None:
    chain = build(above)
    assert second_opinion(chain[:-1], chain[-1]) == ""
    assert we_accept(chain[:-1], chain[-1])


@pytest.mark.parametrize("above", INVALID.values(), ids=INVALID)
def test_both_refuse(above: list[Link]) -> None:
    chain = build(above)
    assert not we_accept(chain[:-1], chain[-1])
    assert second_opinion(chain[:-1], chain[-1]) != ""


@pytest.mark.parametrize("seconds", [-HOUR - 2, HOUR + 2], ids=["before", "after"])
def test_the_caller_checks_the_leafs_validity(seconds: float) -> None:
    """A stated difference: `find_path` leaves the leaf's period to its caller, which has a reason code for it."""
    chain = build([Link()])
    assert we_accept(chain[:-1], chain[-1], NOW + seconds)
    assert second_opinion(chain[:-1], chain[-1], NOW + seconds) != ""


def test_name_constraints_are_refused_here_only() -> None:
    """A stated difference: paths with name constraints are refused, whatever they permit."""
    chain = build([Link(), Link(extra=((x509.NameConstraints([x509.DNSName("a.test")], None), True),))])
    assert not we_accept(chain[:-1], chain[-1])
