"""Small changes to a request, each likely to cross the edge of some clause."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.differential import vocabulary as words
from tests.differential.case import Peer
from tests.differential.credentials import ISSUERS
from tests.differential.envoy_config import PORTS

if TYPE_CHECKING:
    import random

    from tests.differential.draft import Draft

_PATH_TAILS = (
    "/",
    "/x",
    "x",
    ";v=1",
    "?q=1",
    "?",
    "?q=#",
    "%23",
    "%3Fq=1",
    "//",
    "/..",
    "/.",
    "%2f",
    "%5c",
    "=",
    "[",
    "%00",
)
_PATHS = (
    "//api",
    "/api//items",
    "/./api",
    "/x/../api",
    "/api/%2e%2e/items",
    "/api%2Fitems",
    "/api%5citems",
    "/%61pi",
    "/API",
    "/api/;/items",
    "/api/..;/items",
    "/a=b/c",
    "/api.v1/x",
    "/apiXv1/x",
    "/api/x|y",
    "/foo*",
    "/api?x=/api/items",
    "/caf%c3%a9",
    "http://api.example.com/api",
    "HTTP://Example.com:80//api?q",
    "/api\\items",
    "/api/" + "x" * 300,
)


def _cut(text: str, rng: random.Random) -> str:
    """`text` with its last or first character gone, one more, or its case changed."""
    changes = (text[:-1], text[1:], text + "x", "x" + text, text.upper(), text.swapcase(), text + " ", text + ".")
    return rng.choice(changes)


def _path(draft: Draft, rng: random.Random) -> None:
    if rng.random() < 0.5:
        draft.path += rng.choice(_PATH_TAILS)
    elif rng.random() < 0.5:
        draft.path = rng.choice(_PATHS)
    else:
        draft.path = "/" + _cut(draft.path[1:], rng).replace(" ", "")


def _method(draft: Draft, rng: random.Random) -> None:
    draft.method = rng.choice(("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD", "PROPFIND"))


def _host(draft: Draft, rng: random.Random) -> None:
    host = dict(draft.headers).get("host", "")
    changes = (
        host.upper(),
        f"{host}:47080",
        f"{host}:80",
        f"{host}.",
        f"x.{host}",
        f"x{host}",
        host[:-1],
        "",
        ".example.com",
    )
    draft.set_header("host", rng.choice(changes))


def _header(draft: Draft, rng: random.Random) -> None:
    """One more value of a header it has, or another value, or none, or a header of the vocabulary."""
    own = [item for item in draft.headers if item[0] not in ("host", "x-facts")]
    form = rng.random()
    if own and form < 0.3:
        name, value = rng.choice(own)
        draft.headers.insert(rng.randrange(len(draft.headers)), (name, rng.choice((value, "v2", "", "zz"))))
    elif own and form < 0.5:
        name, value = rng.choice(own)
        draft.headers = [item for item in draft.headers if item[0] != name]
        draft.headers.append((name, _cut(value, rng)))
    elif own and form < 0.6:
        draft.headers.remove(rng.choice(own))
    else:
        names = (*words.HEADERS, *words.RARE_HEADERS)
        name = rng.choice([name for name in names if not name.startswith(":") and name != "host"])
        for _ in range(rng.choice((1, 1, 2))):
            draft.headers.append((name, rng.choice(words.SENT_HEADER_VALUES)))


def _peer(draft: Draft, rng: random.Random) -> None:
    peer = draft.connection.peer
    form = rng.random()
    if form < 0.15:
        draft.set_connection(peer=None)
    elif form < 0.25:
        draft.set_connection(tls=False, peer=None, sni="")
    elif form < 0.6:
        draft.set_connection(tls=True, peer=Peer.read(dict(rng.choice(words.PEERS))))
    elif peer is not None and peer.uris:
        scheme, _, rest = peer.uris[0].partition("://")
        uris = (f"{scheme}://{_cut(rest, rng).strip()}", *peer.uris[1:])
        draft.set_connection(peer=Peer(uris=rng.choice((uris, uris[::-1], (*uris, "spiffe://td1/ns/foo/sa/sleep")))))
    else:
        draft.set_connection(tls=True, peer=Peer(uris=("spiffe://" + rng.choice(words.PRINCIPALS),)))


def _sni(draft: Draft, rng: random.Random) -> None:
    draft.set_connection(tls=True, sni=rng.choice(words.SENT_SNIS))


def _address(draft: Draft, rng: random.Random) -> None:
    draft.set_connection(source_ip=rng.choice(words.SOURCE_IPS), port=rng.choice(PORTS))


def _forwarded(draft: Draft, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2))):
        hops = [rng.choice(words.REMOTE_IPS) for _ in range(rng.choice((1, 2, 3)))]
        draft.headers.append(("x-forwarded-for", rng.choice((", ", ",", " ,")).join(hops)))


def _claim(draft: Draft, rng: random.Random) -> None:
    keys = [["sub"], ["aud"], ["azp"], ["groups"], ["scope"], ["permission"], ["roles"], ["realm", "roles"]]
    keys += [["a.b"], ["level"], ["email verified"], ["realm", "deep", "name"], ["a", "b"], ["realm"], ["cnf"], ["jti"]]
    path = rng.choice(keys)
    if draft.claims is not None and path[0] in draft.claims and rng.random() < 0.3:
        del draft.claims[path[0]]
        return
    bindings = ({"x5t#S256": "A" * 43}, {"jkt": "A" * 43}, {"kid": "x"}) if path == ["cnf"] else ()
    draft.claim(path, rng.choice((*words.CLAIMS, rng.choice(words.AUDIENCES), *bindings * 5)))


def _subject(draft: Draft, rng: random.Random) -> None:
    values = (*words.SUBJECTS, "al", "alicex", "Alice", "x/alice", "alice/", 7, None, "bob\n")
    draft.claim([rng.choice(("sub", "sub", "iss"))], rng.choice((*values, *ISSUERS.values())))


def _token(draft: Draft, rng: random.Random) -> None:
    """Something wrong, or unusual but right, about the token itself."""
    if draft.claims is None:
        draft.claim(["iss"], rng.choice((*ISSUERS.values(), "https://nobody.example")))
    changes: tuple[dict[str, Any], ...] = (
        {"key": "a"},
        {"key": "b"},
        *({"key": signer} for signer in "abcdho"),
        *({"key": "b", "alg": f"{family}{bits}"} for family in ("RS", "PS") for bits in (256, 384, 512)),
        {"key": "h", "alg": "HS512"},
        {"key": "c", "header": {"kid": None}},
        {"damage": "signature"},
        {"damage": "truncated"},
        {"header": {"kid": None}},
        {"header": {"kid": "other"}},
        {"header": {"kid": ""}},
        {"header": {"kid": 7}},
        {"header": {"alg": "none"}},
        {"header": {"alg": "ES384"}},
        {"header": {"alg": None}},
        {"header": {"typ": "at+jwt"}},
        {"header": {"typ": 7}},
        {"claims": []},
        {"claims": "text"},
        {"claims": {}},
        {"text": "garbage"},
        {"text": "a.b.c"},
        {"text": ""},
        {"text": "e30.e30."},
    )
    if rng.random() < 0.5:
        draft.token = dict(rng.choice(changes))
        return
    if rng.random() < 0.2:
        issuer = rng.choice(words.ISSUER_NAMES)
        draft.second_token = {"key": issuer, "claims": {"iss": ISSUERS[issuer], "sub": "bob"}}
        if rng.random() < 0.3:
            draft.second_token["damage"] = "signature"
        return
    times: tuple[Any, ...] = (
        {"now": 3600},
        {"now": -30},
        {"now": -100},
        {"now": 30},
        {"now": 100},
        "soon",
        0,
        -1,
        None,
    )
    times += (1e12, 4102444800.5, True, [1], 18446744073709551615, 18446744073709549568, 2**53 + 1, -0.5, 1e300)
    draft.claim([rng.choice(("exp", "exp", "nbf", "nbf", "iat"))], rng.choice(times))
    if rng.random() < 0.1:
        draft.claim(["iss"], rng.choice((7, None, ["x"], "https://nobody.example", ISSUERS["a"] + "/")))


def _json(draft: Draft, rng: random.Random) -> None:
    """The token's JSON, written otherwise: much of it Envoy does not take."""
    if draft.claims is None:
        draft.claim(["iss"], rng.choice((*ISSUERS.values(), "https://nobody.example")))
    part = rng.choice(("claims", "claims", "claims", "header"))
    form = rng.random()
    if form < 0.5:
        draft.token[f"{part}_more"] = rng.choice(words.JSON_MEMBERS if part == "claims" else words.HEADER_MEMBERS)
    elif form < 0.65:
        draft.token[f"{part}_frame"] = rng.choice(words.JSON_FRAMES)
    elif form < 0.8:
        draft.token["style"] = rng.choice(words.JSON_STYLES)
    elif form < 0.86:
        draft.token["slack"] = rng.sample((0, 1, 2), rng.choice((1, 1, 2)))
    else:
        tail = rng.choice(words.TAILS)
        behind_signature = rng.choice(words.SIGNATURE_TAILS)
        draft.token["tails"] = rng.choice(((tail, "", ""), ("", tail, ""), ("", "", behind_signature)))


def _authorization(draft: Draft, rng: random.Random) -> None:
    """Another way to write (or not) credentials."""
    changes = (
        "Token=a.b.c",
        "Token",
        "Bearer",
        "Bearer ",
        "bearer x",
        "Basic eDp5",
        "Bearer a.b.c",
        "",
        "x Bearer a.b.c",
        "Bearera.b.c",
    )
    draft.headers.append((rng.choice(("authorization", "authorization", "x-token")), rng.choice(changes)))


def _facts(draft: Draft, rng: random.Random) -> None:
    if rng.random() < 0.5:
        draft.set_header("x-fact", rng.choice(words.SENT_FACTS))
    else:
        draft.set_fact(rng.choice((rng.choice(words.SENT_FACTS), *words.SENT_VALUES)))


def _preflight(draft: Draft, _rng: random.Random) -> None:
    draft.method = "OPTIONS"
    draft.set_header("origin", "https://page.example")
    draft.set_header("access-control-request-method", "GET")


Change = Callable[["Draft", "random.Random"], None]
_CHANGES: tuple[Change, ...] = (
    *(_path,) * 3,
    _method,
    *(_host,) * 2,
    *(_header,) * 4,
    *(_peer,) * 3,
    _sni,
    _address,
    *(_forwarded,) * 2,
    *(_claim,) * 3,
    *(_token,) * 2,
    *(_json,) * 3,
    _authorization,
    _facts,
    _preflight,
)
CROSSINGS: dict[str, Change] = {
    "principals": _peer,
    "namespaces": _peer,
    "serviceAccounts": _peer,
    "trustDomains": _peer,
    "requestPrincipals": _subject,
    "ipBlocks": _address,
    "remoteIpBlocks": _forwarded,
    "hosts": _host,
    "ports": _address,
    "methods": _method,
    "paths": _path,
    "sni": _sni,
    "facts": _facts,
}
"""For each kind of clause a change that is likely to cross its edge."""


def mutate(draft: Draft, rng: random.Random) -> None:
    """Change one thing about the draft."""
    rng.choice(_CHANGES)(draft, rng)


def mutate_token(draft: Draft, rng: random.Random) -> None:
    """Change one thing about the draft's token."""
    rng.choice((_json, _json, _token, _claim))(draft, rng)


def claim_crossing(path: list[str]) -> Change:
    """A change of the claim at `path`."""

    def change(draft: Draft, rng: random.Random) -> None:
        draft.claim(path, rng.choice((*words.CLAIMS, rng.choice(words.AUDIENCES))))

    return change


def header_crossing(name: str) -> Change:
    """A change of the header `name`: another value, one more before or after, none."""

    def change(draft: Draft, rng: random.Random) -> None:
        values = [value for other, value in draft.headers if other == name]
        rest = [item for item in draft.headers if item[0] != name]
        other = rng.choice((*words.SENT_HEADER_VALUES, *(_cut(value, rng) for value in values)))
        several = rng.choice(((other,), (*values, other), (other, *values), (), (",".join((*values, other)),)))
        if name == "host":
            several = several[:1] or ("other.test",)
        draft.headers = [*rest, *((name, value) for value in several)]

    return change
