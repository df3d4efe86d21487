"""Token locations, and which rule and payload apply if there are several tokens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pki import HOUR, ISSUER, NOW, Signer, jwks
from tests.unit.authn.support import ISTIO, STRICT, accept, bearer, refusal, request, rule, verifier
from zta_authz.authn.locations import TokenFinder, TokenLocations
from zta_authz.errors import Reason
from zta_authz.model.documents import ClaimToHeader, FromHeader

if TYPE_CHECKING:
    from zta_authz.model.documents import JwtRule
    from zta_authz.model.identity import Identity
    from zta_authz.model.request import RequestAttributes

TOKEN = Signer().token()
OTHER_ISSUER = "https://other.example"
OTHER = Signer(kid="o", number=1001)
OTHER_TOKEN = OTHER.token(iss=OTHER_ISSUER, sub="bob")
DEFAULT = verifier(rule())
DEFAULT_ISTIO = verifier(rule(), options=ISTIO)

FOUND, NONE, BAD = "found", "none", Reason.TOKEN_MALFORMED

AUTHORIZATION = {
    "the usual spelling": (f"Bearer {TOKEN}", FOUND, FOUND),
    "lower case": (f"bearer {TOKEN}", FOUND, NONE),
    "upper case": (f"BEARER {TOKEN}", FOUND, NONE),
    "more blanks": (f"Bearer   {TOKEN}", FOUND, FOUND),
    "blanks around": (f" Bearer {TOKEN} ", FOUND, FOUND),
    "not at the start": (f"X Bearer {TOKEN}", NONE, FOUND),
    "a tab": (f"Bearer\t{TOKEN}", BAD, NONE),
    "nothing after": ("Bearer", BAD, NONE),
    "a blank after": ("Bearer ", BAD, BAD),
    "junk after": (f"Bearer {TOKEN} x", BAD, BAD),
    "two joined": (f"Bearer {TOKEN},Bearer {TOKEN}", BAD, BAD),
    "another scheme": ("Basic YTpi", NONE, NONE),
    "a longer scheme": (f"Bearers {TOKEN}", NONE, NONE),
    "a scheme with a dash": (f"Bearer-x {TOKEN}", NONE, NONE),
    "a comma after the scheme": (f"Bearer,{TOKEN}", BAD, NONE),
    "without scheme": (TOKEN, NONE, NONE),
    "empty": ("", NONE, NONE),
}


def outcome(subject: Any, asked: RequestAttributes, expected: str | Reason) -> None:
    if isinstance(expected, Reason):
        assert refusal(subject, asked) is expected
    else:
        assert len(accept(subject, asked).tokens) == (1 if expected == FOUND else 0)


@pytest.mark.parametrize(("value", "strict", "istio"), AUTHORIZATION.values(), ids=AUTHORIZATION.keys())
def test_a_bearer_token_is_found_by_the_rules_of_both_semantics(
    value: str, strict: str | Reason, istio: str | Reason
) -> None:
    outcome(DEFAULT, request(authorization=value), strict)
    outcome(DEFAULT_ISTIO, request(authorization=value), istio)


QUERIES = {
    "alone": (f"/?access_token={TOKEN}", FOUND, FOUND),
    "among others": (f"/a?x=1&access_token={TOKEN}&y", FOUND, FOUND),
    "value escaped": (f"/?access_token={TOKEN.replace('.', '%2E')}", FOUND, FOUND),
    "name escaped, so that Envoy would not take it out": (f"/?access%5Ftoken={TOKEN}", BAD, FOUND),
    "before a fragment": (f"/?access_token={TOKEN}#x", FOUND, FOUND),
    "in the fragment": (f"/#?access_token={TOKEN}", FOUND, FOUND),
    "empty": ("/?access_token=", BAD, BAD),
    "without value": ("/?access_token", BAD, BAD),
    "in another case": (f"/?Access_Token={TOKEN}", NONE, NONE),
    "a longer name": (f"/?access_tokens={TOKEN}", NONE, NONE),
    "twice": (f"/?access_token={TOKEN}&access_token=x", Reason.TOKEN_TOO_MANY, FOUND),
    "twice, once escaped": (f"/?access_token={TOKEN}&access%5ftoken={TOKEN}", BAD, FOUND),
    "garbage first": (f"/?access_token=x&access_token={TOKEN}", Reason.TOKEN_TOO_MANY, BAD),
    "with stray percents": (f"/?%=%&%zz&access_token={TOKEN}", FOUND, FOUND),
    "no query": ("/access_token", NONE, NONE),
    "among a thousand": ("/?" + "x&" * 1000 + "y", Reason.REQUEST_MALFORMED, NONE),
}


@pytest.mark.parametrize(("path", "strict", "istio"), QUERIES.values(), ids=QUERIES.keys())
def test_a_token_in_the_query_is_found_by_the_rules_of_both_semantics(
    path: str, strict: str | Reason, istio: str | Reason
) -> None:
    outcome(DEFAULT, request(path=path), strict)
    outcome(DEFAULT_ISTIO, request(path=path), istio)


COOKIES = {
    "alone": ((f"t={TOKEN}",), FOUND, FOUND),
    "among others": ((f"a=b; t={TOKEN};c",), FOUND, FOUND),
    "quoted": ((f't="{TOKEN}"',), FOUND, FOUND),
    "in a second header": (("a=b", f"t={TOKEN}"), FOUND, FOUND),
    "twice": ((f"t={TOKEN}; t=x",), Reason.TOKEN_TOO_MANY, FOUND),
    "in another case": ((f"T={TOKEN}",), NONE, NONE),
    "without value": (("t",), NONE, NONE),
    "empty": (("t=",), BAD, BAD),
    "joined with a comma": ((f"t={TOKEN},a=b",), BAD, BAD),
    "blanks before the value": ((f"t= {TOKEN}",), FOUND, BAD),
    "blanks behind the value": ((f"t={TOKEN} ; a=b",), FOUND, FOUND),
    "blanks behind the name": ((f"t ={TOKEN}",), FOUND, NONE),
    "blanks behind the quotes": ((f't="{TOKEN}" ; a=b',), FOUND, BAD),
}


@pytest.mark.parametrize(("values", "strict", "istio"), COOKIES.values(), ids=COOKIES.keys())
def test_a_token_in_a_cookie_is_found_by_the_rules_of_both_semantics(
    values: tuple[str, ...], strict: str | Reason, istio: str | Reason
) -> None:
    in_cookie = rule(from_cookies=("t",))
    outcome(verifier(in_cookie), request(cookie=values), strict)
    outcome(verifier(in_cookie, options=ISTIO), request(cookie=values), istio)


CUSTOM: dict[str, tuple[str, str | tuple[str, ...], Any, Any]] = {
    "without prefix": ("", TOKEN, FOUND, FOUND),
    "without prefix, but presented with one": ("", f"Bearer {TOKEN}", BAD, BAD),
    "without prefix, blanks before it, as HTTP/2 carries them": ("", f" {TOKEN}", FOUND, BAD),
    "without prefix, blanks behind it": ("", f"{TOKEN} ", FOUND, FOUND),
    "with its prefix, blanks behind it": ("Tok-", f"Tok-{TOKEN} ", FOUND, FOUND),
    "without prefix, empty": ("", "", BAD, BAD),
    "with its prefix": ("Tok-", f"Tok-{TOKEN}", FOUND, FOUND),
    "its prefix, then what no token has": ("Tok", f'Tok= "{TOKEN}', BAD, FOUND),
    "its prefix, then what no token has, then none": ("Tok", "Tok= !", BAD, BAD),
    "its prefix with the equals sign": ("Token=", f"Token={TOKEN}", FOUND, FOUND),
    "prefix in another case": ("Tok-", f"tok-{TOKEN}", NONE, NONE),
    "prefix absent": ("Tok-", TOKEN, NONE, NONE),
    "prefix later": ("Tok-", f"x Tok-{TOKEN}", NONE, FOUND),
    "bearer as prefix, in another case": ("Bearer ", f"bearer {TOKEN}", FOUND, NONE),
    "repeated": ("", (TOKEN, "x"), Reason.TOKEN_TOO_MANY, BAD),
    "repeated, empty last": ("", (TOKEN, ""), Reason.TOKEN_TOO_MANY, BAD),
    "repeated, with its prefix once": ("Tok-", ("x", f"Tok-{TOKEN}"), Reason.TOKEN_TOO_MANY, FOUND),
    "repeated, twice with its prefix": ("Tok-", (f"Tok-{TOKEN}", "Tok-x"), Reason.TOKEN_TOO_MANY, BAD),
    "repeated, garbage first": ("", ("x", TOKEN), Reason.TOKEN_TOO_MANY, BAD),
}


@pytest.mark.parametrize(("prefix", "value", "strict", "istio"), CUSTOM.values(), ids=CUSTOM.keys())
def test_a_token_in_a_custom_header_is_found_by_the_rules_of_both_semantics(
    prefix: str, value: str | tuple[str, ...], strict: str | Reason, istio: str | Reason
) -> None:
    custom = rule(from_headers=(FromHeader("x-jwt", prefix),))
    outcome(verifier(custom), request(x_jwt=value), strict)
    outcome(verifier(custom, options=ISTIO), request(x_jwt=value), istio)


@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_a_rules_locations_replace_the_defaults(reading: Any) -> None:
    custom = verifier(rule(from_params=("t",)), options=reading)
    outcome(custom, bearer("garbage", path="/?access_token=garbage"), NONE)
    outcome(custom, request(path=f"/?t={TOKEN}"), FOUND)


@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_all_tokens_of_a_rule_must_verify_and_the_first_location_gives_the_payload(reading: Any) -> None:
    everywhere = rule(from_headers=(FromHeader("x-b"), FromHeader("x-a")), from_params=("p",), from_cookies=("c",))
    subject = verifier(everywhere, options=reading)
    names = ("a", "b", "p", "c")
    tokens = {name: Signer().token(sub=name) for name in names}

    def asked(given: dict[str, str]) -> RequestAttributes:
        headers: dict[str, Any] = {f"x_{name}": given[name] for name in ("a", "b") if name in given}
        if "c" in given:
            headers["cookie"] = f"c={given['c']}"
        return request(path=f"/?p={given['p']}" if "p" in given else "/", **headers)

    for start, name in enumerate(names):
        identity = accept(subject, asked({present: tokens[present] for present in names[start:]}))
        assert identity.token is not None
        assert identity.token.subject == name
        assert len(identity.tokens) == len(names) - start
        assert refusal(subject, asked(tokens | {name: "x"})) is Reason.TOKEN_MALFORMED
    changes = accept(subject, asked(tokens)).changes
    assert (set(changes.remove_headers), changes.remove_query) == ({"x-a", "x-b"}, ("p",))


def pair(**changed: Any) -> tuple[JwtRule, JwtRule]:
    """Two rules of different issuers; `b` sorts after `a` whatever their order in the documents."""
    other = rule(issuer=OTHER_ISSUER, jwks=jwks([OTHER]), policy="default/other")
    return other, rule(**changed)


def subjects(identity: Identity) -> list[str]:
    return [token.subject for token in identity.tokens]


@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_a_token_goes_to_the_rule_of_its_issuer(reading: Any) -> None:
    subject = verifier(*pair(), options=reading)
    assert subjects(accept(subject, bearer(TOKEN))) == ["alice"]
    assert subjects(accept(subject, bearer(OTHER_TOKEN))) == ["bob"]
    assert subjects(accept(subject, request())) == []
    third = Signer().token(iss="https://third.example")
    assert refusal(subject, bearer(third)) is Reason.TOKEN_ISSUER_UNKNOWN
    assert subject.issuers == (ISSUER, OTHER_ISSUER)
    crossed = OTHER.token()
    assert refusal(subject, bearer(crossed)) is Reason.TOKEN_KEY_UNKNOWN


def test_two_tokens_of_two_issuers_in_shared_locations_both_count_in_strict_and_in_istio_unless_forwarded() -> None:
    asked = bearer(OTHER_TOKEN, path=f"/?access_token={TOKEN}")
    identity = accept(verifier(*pair()), asked)
    assert subjects(identity) == ["alice", "bob"]
    assert identity.token is identity.tokens[0]
    lax = accept(verifier(*pair(), options=ISTIO), asked)
    assert lax.token is not None
    assert lax.token.subject == "bob"
    kept = pair(forward_original_token=True)
    assert refusal(verifier(*kept, options=ISTIO), asked) is Reason.TOKEN_ISSUER_UNKNOWN


def test_strict_checks_every_token_and_istio_stops_at_the_first_rule_that_accepts() -> None:
    rules = pair(from_headers=(FromHeader("x-a"),))
    asked = request(x_a=TOKEN, authorization="Bearer garbage")
    assert refusal(verifier(*rules), asked) is Reason.TOKEN_MALFORMED
    lax = accept(verifier(*rules, options=ISTIO), asked)
    assert subjects(lax) == ["alice"]
    assert lax.changes.remove_headers == ("x-a",)
    expired = request(x_a=Signer().token(exp=NOW - HOUR), authorization=f"Bearer {OTHER_TOKEN}")
    assert refusal(verifier(*rules), expired) is Reason.TOKEN_EXPIRED
    assert subjects(accept(verifier(*rules, options=ISTIO), expired)) == ["bob"]


@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_a_bad_token_never_counts_as_absent(reading: Any) -> None:
    rules = pair(from_headers=(FromHeader("x-a"),))
    assert refusal(verifier(*rules, options=reading), request(x_a="garbage")) is Reason.TOKEN_MALFORMED
    assert refusal(verifier(*rules, options=reading), bearer("garbage")) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_a_token_is_accepted_only_at_its_own_issuers_locations(reading: Any) -> None:
    rules = pair(from_headers=(FromHeader("x-a"),))
    assert refusal(verifier(*rules, options=reading), bearer(TOKEN)) is Reason.TOKEN_ISSUER_UNKNOWN


@pytest.mark.parametrize("reading", [STRICT, ISTIO], ids=["strict", "istio"])
def test_either_of_two_rules_of_one_issuer_may_accept(reading: Any) -> None:
    rules = rule(audiences=("a",), policy="default/one"), rule(audiences=("b",), policy="default/two")
    subject = verifier(*rules, options=reading)
    for audience, policy in (("a", "default/one"), ("b", "default/two")):
        for _ in range(2):
            token = accept(subject, bearer(Signer().token(aud=audience))).token
            assert token is not None
            assert token.policy == policy
    assert refusal(subject, bearer(Signer().token(aud="c"))) is Reason.TOKEN_AUDIENCE


def test_more_than_eight_tokens_are_too_many_for_strict() -> None:
    names = [f"t{number}" for number in range(9)]
    subject = verifier(rule(from_params=tuple(names)))
    query = "&".join(f"{name}={TOKEN}" for name in names[:8])
    assert len(accept(subject, request(path=f"/?{query}")).tokens) == 1
    assert refusal(subject, request(path=f"/?{query}&t8={TOKEN}")) is Reason.TOKEN_TOO_MANY


def test_headers_of_several_tokens_are_set_together() -> None:
    claim = (ClaimToHeader("x-user", "sub"),)
    other, first = pair(from_headers=(FromHeader("x-a"),), output_claim_to_headers=claim)
    subject = verifier(other, first)
    changes = accept(subject, request(x_a=TOKEN, authorization=f"Bearer {OTHER_TOKEN}")).changes
    assert changes.set_headers == (("x-user", "alice"),)
    assert changes.remove_headers == ("authorization", "x-a")
    only_other = accept(subject, bearer(OTHER_TOKEN, x_user="spoofed")).changes
    assert only_other.remove_headers == ("authorization", "x-user")


PREFLIGHT = {"origin": "https://a.example", "access_control_request_method": "PUT"}


def test_istio_skips_tokens_of_preflights_and_unusual_paths_and_strict_does_not() -> None:
    for asked in (
        bearer("garbage", method="OPTIONS", **PREFLIGHT),
        bearer("garbage", path="*", method="OPTIONS"),
        bearer("garbage", path=""),
    ):
        assert refusal(DEFAULT, asked) is Reason.TOKEN_MALFORMED
        assert accept(DEFAULT_ISTIO, asked).tokens == ()
    for asked in (
        bearer("garbage", method="OPTIONS"),
        bearer("garbage", method="GET", **PREFLIGHT),
        bearer("garbage", method="OPTIONS", **(PREFLIGHT | {"origin": ""})),
    ):
        assert refusal(DEFAULT_ISTIO, asked) is Reason.TOKEN_MALFORMED


HOSTILE_QUERIES = {
    "long names": "%20" * 19_000,
    "many names": "&".join(["%61" * 12 + "x"] * 900),
    "stray escapes in names": "&".join(["%" * 36] * 900),
    "stray escapes in a value": "access_token=" + "%" * 58_000,
    "a long value": "access_token=" + "%41" * 19_000,
}


@pytest.mark.parametrize("name", HOSTILE_QUERIES)
def test_encoded_names_and_values_of_parameters_cost_little(name: str) -> None:
    finder = TokenFinder(TokenLocations().of(rule()), strict=True)
    begun = time.process_time()
    for _ in range(5):
        finder.find(request(path=f"/?{HOSTILE_QUERIES[name]}"))
    assert (time.process_time() - begun) / 5 < 0.015


def test_a_parameter_name_is_recognised_in_any_encoding() -> None:
    everything = "".join(f"%{byte:02x}" for byte in b"access_token")
    assert refusal(DEFAULT, request(path=f"/?{everything}={TOKEN}")) is Reason.TOKEN_MALFORMED
    assert accept(DEFAULT_ISTIO, request(path=f"/?{everything}={TOKEN}")).tokens
    assert refusal(DEFAULT, request(path="/?access_token=%zz")) is Reason.TOKEN_MALFORMED


def test_strict_refuses_more_than_a_thousand_cookies_if_tokens_may_be_in_them() -> None:
    cookies = rule(from_cookies=("session",))
    many = "; ".join(["a=b"] * 1000)
    assert accept(verifier(cookies), request(cookie=many)).tokens == ()
    assert refusal(verifier(cookies), request(cookie=f"{many}; session={TOKEN}")) is Reason.REQUEST_MALFORMED
    assert refusal(verifier(cookies), request(cookie=(many, f"session={TOKEN}"))) is Reason.REQUEST_MALFORMED
    assert accept(verifier(cookies, options=ISTIO), request(cookie=f"{many}; session={TOKEN}")).tokens
    assert accept(DEFAULT, request(cookie=f"{many}; a=b")).tokens == ()
