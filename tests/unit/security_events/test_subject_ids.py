"""Subject identifiers: every format, those of older transmitters, and every limit."""

from __future__ import annotations

from typing import Any

import pytest

from zta_authz.security_events.subject_ids import IdFormat, SubjectId, parse_subject

OPAQUE = {"format": "opaque", "id": "x"}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"format": "account", "uri": "acct:a@b.example"}, SubjectId(IdFormat.ACCOUNT, "", "acct:a@b.example")),
        ({"format": "did", "url": "did:example:1"}, SubjectId(IdFormat.DID, "", "did:example:1")),
        ({"format": "email", "email": "a@b.example"}, SubjectId(IdFormat.EMAIL, "", "a@b.example")),
        ({"format": "iss_sub", "iss": "i", "sub": "s"}, SubjectId(IdFormat.ISS_SUB, "i", "s")),
        ({"format": "jwt_id", "iss": "i", "jti": "j"}, SubjectId(IdFormat.JWT_ID, "i", "j")),
        (OPAQUE, SubjectId(IdFormat.OPAQUE, "", "x")),
        ({"format": "phone_number", "phone_number": "+1 206"}, SubjectId(IdFormat.PHONE_NUMBER, "", "+1 206")),
        ({"format": "saml_assertion_id", "issuer": "i", "assertion_id": "a"}, SubjectId(IdFormat.SAML_ASSERTION_ID, "i", "a")),
        ({"format": "uri", "uri": "urn:x"}, SubjectId(IdFormat.URI, "", "urn:x")),
        ({"format": "ip-addresses", "ip-addresses": ["10.0.0.1"]}, SubjectId(None)),
        ({"format": "catalog_item", "catalog_id": "c"}, SubjectId(None)),
        ({"subject_type": "iss-sub", "iss": "i", "sub": "s"}, SubjectId(IdFormat.ISS_SUB, "i", "s")),
        ({"subject_type": "phone", "phone_number": "+1"}, SubjectId(IdFormat.PHONE_NUMBER, "", "+1")),
    ],
)  # fmt: skip
def test_every_format_is_parsed(written: dict[str, Any], expected: SubjectId) -> None:
    assert parse_subject(written).simple == (expected,)


def test_the_members_of_a_complex_subject_are_parsed_with_or_without_its_format() -> None:
    members = {"user": {"format": "iss_sub", "iss": "i", "sub": "s"}, "session": OPAQUE, "shop.example": 7}
    for written in ({"format": "complex", **members}, members):
        parsed = parse_subject(written).members
        assert parsed is not None
        assert parsed["user"] == (SubjectId(IdFormat.ISS_SUB, "i", "s"),)
        assert parsed["session"] == (SubjectId(IdFormat.OPAQUE, "", "x"),)
        assert parsed["shop.example"] == (SubjectId(None),)


def test_aliases_are_parsed_once_each() -> None:
    written = {"format": "aliases", "identifiers": [OPAQUE, OPAQUE, {"format": "email", "email": "e"}]}
    assert len(parse_subject(written).simple) == 2


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (None, "not an object"),
        ([], "not an object"),
        ({}, "no `format`"),
        ({"format": 7}, "`format` is not a string"),
        ({"format": "x" * 65}, "`format` is not a string"),
        ({"format": ["email"]}, "`format` is not a string"),
        ({"format": "email"}, "`email` is not a string"),
        ({"format": "email", "email": ""}, "`email` is not a string"),
        ({"format": "email", "email": "x" * 1025}, "`email` is not a string of 1 to 1024"),
        ({"format": "iss_sub", "iss": "i"}, "`sub` is not a string"),
        ({"format": "iss_sub", "sub": "s"}, "`iss` is not a string"),
        ({"format": "opaque", "id": 7}, "`id` is not a string"),
        ({"format": "complex"}, "1 to 16 members"),
        ({"format": "complex", **{f"m{n}": OPAQUE for n in range(17)}}, "1 to 16 members"),
        ({"format": "complex", "m" * 65: OPAQUE}, "1 to 16 members"),
        ({"format": "complex", "user": {"format": "complex", "user": OPAQUE}}, "inside another"),
        ({"format": "complex", "user": {"format": "email"}}, "`email` is not a string"),
        ({"format": "aliases"}, "1 to 16 `identifiers`"),
        ({"format": "aliases", "identifiers": []}, "1 to 16 `identifiers`"),
        ({"format": "aliases", "identifiers": [OPAQUE] * 17}, "1 to 16 `identifiers`"),
        ({"format": "aliases", "identifiers": [7]}, "not a simple one"),
        ({"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [OPAQUE]}]}, "not a simple one"),
        ({"format": "aliases", "identifiers": [{"format": "complex", "user": OPAQUE}]}, "not a simple one"),
        ({"format": "aliases", "identifiers": [{"user": OPAQUE}]}, "not a simple one"),
    ],
)  # fmt: skip
def test_a_subject_that_does_not_conform_is_refused(written: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_subject(written)
