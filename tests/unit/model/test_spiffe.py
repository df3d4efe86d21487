"""SPIFFE IDs follow section 2 of the SPIFFE-ID specification exactly, and are never normalised."""

from __future__ import annotations

import pytest

from zta_authz.model.spiffe import SpiffeId, TrustDomain

LONGEST_DOMAIN = "a" * 255
FITTING = "spiffe://a/" + "p" * (2048 - len("spiffe://a/"))

VALID = [
    ("spiffe://example.org", "example.org", ""),
    ("spiffe://example.org/ns/default/sa/frontend", "example.org", "/ns/default/sa/frontend"),
    ("spiffe://a/b", "a", "/b"),
    ("spiffe://1-2_3.4/A.b-C_9", "1-2_3.4", "/A.b-C_9"),
    ("spiffe://example.org/...", "example.org", "/..."),
    ("spiffe://example.org/.hidden/..x", "example.org", "/.hidden/..x"),
    (f"spiffe://{LONGEST_DOMAIN}/x", LONGEST_DOMAIN, "/x"),
    (FITTING, "a", FITTING.removeprefix("spiffe://a")),
]

INVALID = {
    "nothing": "",
    "no scheme": "example.org/a",
    "another scheme": "https://example.org/a",
    "upper-case scheme": "SPIFFE://example.org/a",
    "one slash": "spiffe:/example.org/a",
    "no trust domain": "spiffe:///a",
    "no trust domain, no path": "spiffe://",
    "upper case in the trust domain": "spiffe://Example.org/a",
    "port": "spiffe://example.org:443/a",
    "user info": "spiffe://user@example.org/a",
    "percent in the trust domain": "spiffe://ex%61mple.org/a",
    "not ASCII in the trust domain": "spiffe://exämple.org/a",
    "trust domain too long": f"spiffe://{LONGEST_DOMAIN}a/x",
    "trailing slash": "spiffe://example.org/a/",
    "only a slash": "spiffe://example.org/",
    "empty segment": "spiffe://example.org/a//b",
    "dot segment": "spiffe://example.org/a/./b",
    "last segment a dot": "spiffe://example.org/a/.",
    "dot-dot segment": "spiffe://example.org/a/../b",
    "last segment dot-dot": "spiffe://example.org/..",
    "percent in the path": "spiffe://example.org/a%2Fb",
    "query": "spiffe://example.org/a?b",
    "fragment": "spiffe://example.org/a#b",
    "colon in the path": "spiffe://example.org/a:b",
    "not ASCII in the path": "spiffe://example.org/ä",
    "digits that are not ASCII": "spiffe://example.org/\u0663",
    "newline at the end": "spiffe://example.org/a\n",
    "newline after the trust domain": "spiffe://example.org\n",
    "NUL": "spiffe://example.org/a\x00",
    "space before": " spiffe://example.org/a",
    "too long": FITTING + "p",
}


@pytest.mark.parametrize(("text", "domain", "path"), VALID, ids=lambda value: str(value)[:40])
def test_a_valid_id_is_parsed_and_formatted_again(text: str, domain: str, path: str) -> None:
    spiffe_id = SpiffeId.parse(text)
    assert (spiffe_id.trust_domain, spiffe_id.path) == (TrustDomain(domain), path)
    assert str(spiffe_id) == text


@pytest.mark.parametrize("text", INVALID.values(), ids=INVALID.keys())
def test_text_that_the_grammar_does_not_allow_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"SPIFFE ID|trust domain"):
        SpiffeId.parse(text)


def test_ids_with_equal_texts_are_equal_and_hash_equally() -> None:
    one, same, other = map(SpiffeId.parse, ("spiffe://a/b", "spiffe://a/b", "spiffe://a/B"))
    assert {one} == {same}
    assert one != other


@pytest.mark.parametrize("text", ["", "A", "a/b", "a\n", "spiffe://a", "a b"])
def test_a_trust_domain_is_a_name_and_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="trust domain"):
        TrustDomain.parse(text)
