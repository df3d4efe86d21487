"""Other readings of one text that an upstream may use: paths, hosts, queries, addresses, header names."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from zta_authz.model.addresses import address_forms
from zta_authz.model.changed_headers import folded_name, has_odd_names
from zta_authz.model.percent import percent_decoded, utf8_bytes

if TYPE_CHECKING:
    from zta_authz.model.addresses import Ip
    from zta_authz.model.request import Headers

NO_ADDRESSES: Final[tuple[Ip, ...]] = ()
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_PLAIN_IPV4: Final = re.compile(r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")
_NO_SPELLINGS: Final[dict[str, tuple[str, ...]]] = {}

PSEUDO_HEADERS: Final = frozenset((":method", ":path", ":authority", ":scheme", "host"))
# Envoy joins repeats of these before any filter or upstream sees them, so every reader gets one value.
JOINED_BY_ENVOY: Final = frozenset(
    (
        "accept", "accept-encoding", "authorization", "content-type", "grpc-timeout", "origin", "referer", "user-agent",
        "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id",
    )
)  # fmt: skip


def odd_spellings(headers: Headers) -> dict[str, tuple[str, ...]]:
    """Header names with characters other than letters, digits and `-`, keyed by the name an application may read."""
    if not has_odd_names(headers.listing):
        return _NO_SPELLINGS
    names_by_folded: dict[str, list[str]] = {}
    for name in headers.names():
        folded = folded_name(name)
        if folded != name:
            names_by_folded.setdefault(folded, []).append(name)
    return {folded: tuple(names) for folded, names in names_by_folded.items()}


def without_parameter(path: str, name: str) -> str:
    """The path as Envoy rewrites it to remove the query parameter `name`: the others are decoded and sorted by name.

    Source: Envoy `Utility::QueryParamsMulti`.
    """
    before, mark, query = path.partition("?")
    if not mark:
        return path
    kept: dict[str, list[str]] = {}
    for field in query.removesuffix("&").split("&"):
        key, _, value = field.partition("=")
        kept.setdefault(_percent_decoded(key), []).append(_percent_decoded(value))
    pairs = [f"{key}={value}" for key in sorted(kept) if key != name for value in kept[key]]
    return f"{before}?{'&'.join(pairs)}" if pairs else before


def _percent_decoded(text: str) -> str:
    return percent_decoded(utf8_bytes(text)).decode("utf-8", "surrogateescape") if "%" in text else text


def host_variants(host: str) -> tuple[str, ...]:
    """A host in every form that may mean the same server: as given, without port, without the trailing dot."""
    variants = [host]
    bare = _without_port(host)
    for candidate in (bare, bare.rstrip("."), bare.rstrip(".") + host[len(bare) :]):
        if candidate not in variants:
            variants.append(candidate)
    return tuple(variants)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and (not port or port.isdigit()) and (not name.count(":") or name.endswith("]")) else host


class RespelledParts(NamedTuple):
    """The parts that a condition reads and an upstream may read differently; `port` if the condition names no port."""

    path: bool
    query: bool
    host: bool
    port: bool


def host_readings(host: str, port: bool) -> tuple[str, ...]:
    """A host as given, and without the trailing dot; if `port` is true, also without its port."""
    bare = _without_port(host)
    plain = bare.rstrip(".") + ("" if port else host[len(bare) :])
    return (host,) if plain == host else (host, plain)


def query_readings(query: str) -> tuple[str, ...]:
    """A query as given, and decoded with `+` as `+` (RFC 3986) and as a blank (forms; WHATWG URL, section 5)."""
    if "%" not in query and "+" not in query:
        return (query,)
    return tuple(dict.fromkeys((query, _percent_decoded(query), _percent_decoded(query.replace("+", " ")))))


def target_readings(targets: tuple[str, ...]) -> tuple[str, ...]:
    """Paths with their queries as given, and decoded as UTF-8 and as Latin-1."""
    if not any("%" in target for target in targets):
        return targets
    data = [percent_decoded(utf8_bytes(target)) for target in targets]
    decoded = (raw.decode(*codec) for raw in data for codec in (("utf-8", "surrogateescape"), ("latin-1",)))
    return tuple(dict.fromkeys((*targets, *decoded)))


def encodable(texts: tuple[str, ...]) -> list[str]:
    """The `texts` that a CEL string can hold: those that were valid UTF-8."""
    return [text for text in texts if not _SURROGATE.search(text)]


def address_readings(text: str) -> tuple[Ip, ...]:
    """The address in `text` and, if it embeds an IPv4 address, that one too; () if `text` is not an address."""
    address = parse_ip(text)
    return NO_ADDRESSES if address is None else address_forms(address)


def parse_ip(text: str) -> Ip | None:
    """Parse one address; None if `text` is anything else.

    A numeric zone of an IPv6 address (RFC 4007 section 11) is ignored. A named zone is only known on the proxy's host,
    so such an address gives None.
    """
    plain = _PLAIN_IPV4.fullmatch(text)
    if plain is not None:
        first, second, third, fourth = map(int, plain.groups())
        if first < 256 and second < 256 and third < 256 and fourth < 256:
            return IPv4Address(first << 24 | second << 16 | third << 8 | fourth)
    bare, percent, zone = text.partition("%")
    if percent and not (":" in bare and zone.isascii() and zone.isdigit() and len(zone) < 10):
        return None
    try:
        return ip_address(bare) if bare else None
    except ValueError:
        return None
