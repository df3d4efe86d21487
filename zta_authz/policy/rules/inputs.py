"""The view of a request that rules are evaluated on: attributes and verified identity, in strict or Istio semantics."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final

from zta_authz.model.changed_headers import folded_name, has_odd_names
from zta_authz.model.claims import claim_at, other_texts
from zta_authz.model.percent import percent_decoded, utf8_bytes
from zta_authz.policy.cel.cost import MAX_UNITS, ConditionMemory
from zta_authz.policy.rules.facts import no_facts
from zta_authz.policy.rules.matchers import ascii_lower
from zta_authz.policy.rules.spellings import (
    JOINED_BY_ENVOY,
    NO_ADDRESSES,
    PSEUDO_HEADERS,
    address_readings,
    encodable,
    host_readings,
    host_variants,
    odd_spellings,
    query_readings,
    target_readings,
    without_parameter,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zta_authz.model.addresses import Ip
    from zta_authz.model.identity import Identity
    from zta_authz.model.options import Options
    from zta_authz.model.request import RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.policy.rules.facts import OpenFacts, RequestFacts
    from zta_authz.policy.rules.spellings import RespelledParts

_BLANKS: Final = " \t"
_SPACE_DELIMITED: Final = frozenset(("scope", "permission"))


class Inputs:
    """The values that matchers compare. One object per request; clauses never change it.

    `now` is in seconds since the epoch. `names` are the peer's names. `path` has no query or fragment. `host` is the
    authority in lower case, None if absent. `methods` and `path_as_received` are `method` and `path` as dimensions read
    them. `stages`, if given, records the time that conditions take.
    """

    __slots__ = (
        "_claim_texts", "_claims", "_conditions", "_destination_ips", "_embedded_ipv4", "_forwarded_path",
        "_hosts", "_paths", "_query", "_remote_ips", "_respelled", "_sni", "_source_ips", "_spellings", "_trimmed",
        "claims", "host", "identity", "method", "methods", "names", "now", "open_facts", "options", "path",
        "path_as_received", "read_facts", "request", "request_principal", "stages", "strict",
    )  # fmt: skip

    def __init__(
        self,
        request: RequestAttributes,
        identity: Identity,
        options: Options,
        now: float = 0.0,
        stages: Stages | None = None,
        open_facts: OpenFacts = no_facts,
    ) -> None:
        self.request = request
        self.identity = identity
        self.options = options
        self.now = now
        self.stages = stages
        self.open_facts = open_facts
        self.read_facts: RequestFacts | None = None
        self.strict = options.strict
        self.method = request.method
        self.methods = (request.method,)
        self.path = request.path.partition("?")[0].partition("#")[0]
        self.path_as_received = (self.path,)
        self.host: str | None = request.host.lower() if request.host.isascii() else ascii_lower(request.host)
        if not self.host and "host" not in request.headers:
            self.host = None
        peer, token = identity.peer, identity.token
        self.names = peer.names if peer is not None else ()
        self.claims: Mapping[str, Any] | None = token.claims if token is not None else None
        self.request_principal: tuple[str, str] | None = token.names if token is not None else None
        self._conditions: ConditionMemory | None = None
        # Filled on first use, because many rules read the same values.
        self._hosts: tuple[str, ...] | None = None
        self._paths: tuple[str, ...] | None = None
        self._forwarded_path: str | None = None
        self._sni: str | None = None
        self._spellings: dict[str, tuple[str, ...]] | None = None
        self._trimmed: dict[str, tuple[str, ...]] = {}
        self._claims: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._claim_texts: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._source_ips: tuple[Ip, ...] | None = None
        self._remote_ips: tuple[Ip, ...] | None = None
        self._destination_ips: tuple[Ip, ...] | None = None
        self._embedded_ipv4: Inputs | None = None
        self._query: str | None = None
        self._respelled: dict[RespelledParts, tuple[Inputs, ...]] = {}

    @property
    def facts(self) -> RequestFacts:
        """The facts about this request's network, device and trust, read on first use."""
        if self.read_facts is None:
            self.read_facts = self.open_facts.open(self)
        return self.read_facts

    def with_identity(self, identity: Identity) -> Inputs:
        """This view with another identity, such as another token of the request."""
        return Inputs(self.request, identity, self.options, self.now, self.stages, self.open_facts)

    @property
    def conditions(self) -> ConditionMemory:
        """Values and cost budget that the conditions of this request share."""
        self._conditions = self._conditions or ConditionMemory()
        return self._conditions

    def continue_condition_units(self, other: Inputs) -> None:
        """Continue with the cost units that conditions left on `other`, a view of the same request."""
        if other._conditions is not None:
            self.conditions.units = other._conditions.units

    def share_condition_units(self, other: Inputs, shares: int) -> None:
        """Continue with the units left on `other`; its free units are split among `shares` views."""
        self.continue_condition_units(other)
        self.conditions.free = other.conditions.free // shares

    def restore_condition_units(self) -> None:
        """Reset the cost units of conditions to the full budget."""
        if self._conditions is not None:
            self._conditions.units = MAX_UNITS

    def grant_condition_units(self, most: int) -> int:
        """Reset the cost units of conditions to the full budget, but at most to `most`; return the new value."""
        self.conditions.units = min(MAX_UNITS, most)
        return self.conditions.units

    def any_header_unclear(self) -> bool:
        """Whether `header_unclear` holds for any header, or an application may read a header's name as another name."""
        memory = self.conditions
        if memory.header_unclear is None:
            odd = has_odd_names(self.request.headers.listing)
            memory.header_unclear = odd or any(self.header_unclear(name) for name in self.header_names())
        return memory.header_unclear

    def header_unclear(self, name: str) -> bool:
        """Whether a header has, or may have, several values. A value with blanks around it counts as two."""
        if len(self.trimmed_header(name)) > 1 or self.ambiguous_header(name):
            return True
        return bool(self.other_spellings(name, folded_name(name)))

    @property
    def query(self) -> str:
        """The raw text after the first `?` of the path."""
        return self.request.path.partition("?")[2] if self._query is None else self._query

    @property
    def port(self) -> int:
        """The proxy's local port."""
        return self.request.destination.port

    @property
    def sni(self) -> str:
        """The server name of the TLS session, in lower case."""
        if self._sni is None:
            self._sni = ascii_lower(self.request.sni)
        return self._sni

    def hosts(self, wide: bool) -> tuple[str, ...]:
        """The authority as received; with `wide` in strict mode also without port and without trailing dot."""
        if self.host is None:
            return ()
        if not (wide and self.strict):
            return (self.host,)
        if self._hosts is None:
            self._hosts = host_variants(self.host)
        return self._hosts

    def paths(self, wide: bool) -> tuple[str, ...]:
        """The path as received; with `wide` in strict mode also percent-decoded, as an upstream may read it.

        Nearly every upstream decodes to UTF-8, some to Latin-1.
        """
        if not (wide and self.strict and "%" in self.path):
            return self.path_as_received
        if self._paths is None:
            data = percent_decoded(utf8_bytes(self.path))
            utf8, latin1 = data.decode("utf-8", "surrogateescape"), data.decode("latin-1")
            self._paths = tuple(dict.fromkeys((self.path, utf8, utf8.rstrip(" "), latin1, latin1.rstrip(" "))))
        return self._paths

    def header(self, name: str) -> tuple[str, ...]:
        """The values of a header as forwarded after authentication, without tokens that are not forwarded."""
        if name in PSEUDO_HEADERS:
            return self._pseudo_header(name)
        changes = self.identity.changes
        if changes.set_headers:
            values = tuple(value for header, value in changes.set_headers if header == name)
            if values:
                return values
        if name in changes.remove_headers:
            return ()
        return self.request.headers.all(name)

    def trimmed_header(self, name: str) -> tuple[str, ...]:
        """Each forwarded value, with and without the blanks around it; in strict mode also `:path` decoded.

        Envoy forwards the blanks over HTTP/2 (measured, 1.40), but an HTTP/1 upstream never sees them (RFC 9110
        section 5.5).
        """
        forms = self._trimmed.get(name)
        if forms is None:
            values = self.header(name)
            if name == ":path" and self.strict:
                values = target_readings(values)
            trimmed = tuple(value.strip(_BLANKS) for value in values)
            forms = values if trimmed == values else tuple(dict.fromkeys((*values, *trimmed)))
            self._trimmed[name] = forms
        return forms

    def other_spellings(self, name: str, folded: str) -> tuple[str, ...]:
        """The request's headers that an application may read as `name`, such as `x_role` and `x.role` for `x-role`.

        `folded` is `folded_name(name)`. Headers that authentication sets or removes have no other spellings, because
        those are removed before the request is forwarded.
        """
        if self._spellings is None:
            self._spellings = odd_spellings(self.request.headers)
        spellings = self._spellings.get(folded, ())
        if name != folded and folded in self.request.headers:
            spellings = (*spellings, folded)
        if not spellings or name in PSEUDO_HEADERS or self._is_replaced(name):
            return ()
        return tuple(other for other in spellings if other != name)

    def _is_replaced(self, name: str) -> bool:
        changes = self.identity.changes
        return name in changes.remove_headers or any(header == name for header, _ in changes.set_headers)

    def ambiguous_header(self, name: str) -> bool:
        """Whether repeats may have been joined, so that the single values are unknown (strict mode only).

        Headers that authentication sets or removes are known whatever the client sent. A pseudo-header has one value.
        """
        headers = self.request.headers
        if (
            headers.exact
            or name in JOINED_BY_ENVOY
            or not self.strict
            or not any("," in value for value in headers.all(name))
        ):
            return False
        return not self._is_replaced(name) and name not in PSEUDO_HEADERS

    def header_names(self) -> Iterable[str]:
        """The names of all forwarded headers; may include headers that authentication removes."""
        changed = self.identity.changes.set_headers
        names = self.request.headers.names()
        return {*names, *(name for name, _ in changed)} if changed else names

    def folded_header_names(self) -> Iterable[str]:
        """`header_names`, each folded to the spelling that an application may read."""
        names = self.header_names()
        if not self.identity.changes.set_headers and not has_odd_names(self.request.headers.listing):
            return names
        return {folded_name(name) for name in names}

    def _pseudo_header(self, name: str) -> tuple[str, ...]:
        request = self.request
        match name:
            case ":method":
                value = request.method
            case ":path":
                value = self._path_as_forwarded()
            case ":scheme":
                value = request.scheme
            case _:
                return () if self.host is None else (request.host,)
        return (value,) if value else ()

    def _path_as_forwarded(self) -> str:
        """The path with its query, without the parameters that authentication removes."""
        if self._forwarded_path is None:
            self._forwarded_path = self.request.path
            for parameter in self.identity.changes.remove_query:
                self._forwarded_path = without_parameter(self._forwarded_path, parameter)
        return self._forwarded_path

    def claim(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """The string, or each string of the list, at a claim path; () for any other value."""
        texts = self._claims.get(path)
        if texts is None:
            texts = self._claims[path] = self._read_claim(path)
        return texts

    def _read_claim(self, path: tuple[str, ...]) -> tuple[str, ...]:
        value: Any = self.claims
        for step in path:
            if not hasattr(value, "get"):
                return ()
            value = value.get(step)
        if isinstance(value, str):
            spaced = len(path) == 1 and (path[0] in _SPACE_DELIMITED or path[0] in self._spaced())
            return tuple(part for part in value.split(" ") if part) if spaced else (value,)
        if isinstance(value, (list, tuple)):
            return tuple(item for item in value if isinstance(item, str))
        return ()

    def claim_as_text(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """As `claim`, plus values that are not strings as header text: applications also read `true` and 7."""
        texts = self._claim_texts.get(path)
        if texts is None:
            others = other_texts(claim_at(self.claims or {}, path))
            texts = self._claim_texts[path] = (*self.claim(path), *others)
        return texts

    def _spaced(self) -> tuple[str, ...]:
        token = self.identity.token
        return token.space_delimited_claims if token is not None else ()

    def metadata(self, filter_name: str, path: tuple[str, ...]) -> Any:
        """One filter's dynamic metadata at a path, None if absent."""
        value: Any = self.request.metadata.get(filter_name)
        for step in path:
            value = value.get(step) if hasattr(value, "get") else None
        return value

    # Addresses: as received and, if an IPv6 address embeds an IPv4 address, that one too; () if absent or unreadable.

    @property
    def source_ips(self) -> tuple[Ip, ...]:
        """The address of the proxy's direct peer."""
        if self._source_ips is None:
            self._source_ips = address_readings(self.request.source.ip)
        return self._source_ips

    @property
    def destination_ips(self) -> tuple[Ip, ...]:
        """The proxy's local address."""
        if self._destination_ips is None:
            self._destination_ips = address_readings(self.request.destination.ip)
        return self._destination_ips

    @property
    def remote_ips(self) -> tuple[Ip, ...]:
        """The client as Envoy's connection manager derives it from `x-forwarded-for`.

        If that entry is missing or unreadable, Envoy uses the direct peer, which may be one of your own proxies. In
        strict mode the address is then unknown: ().
        """
        if self._remote_ips is None:
            self._remote_ips = self._derive_remote_ips()
        return self._remote_ips

    def _derive_remote_ips(self) -> tuple[Ip, ...]:
        hops = self.options.xff_num_trusted_hops
        if self.options.use_remote_address and hops == 0:
            return self.source_ips
        joined = self.request.headers.joined("x-forwarded-for")
        if joined is None and hops == 0:
            return self.source_ips
        entries = joined.rsplit(",", hops + 1) if joined else []
        # With use_remote_address Envoy has already appended the peer's address, so both count the same way.
        index = len(entries) - 1 - hops
        addresses = address_readings(entries[index].strip(" \t\v\f")) if index >= 0 else NO_ADDRESSES
        return addresses if addresses or self.strict else self.source_ips

    def set_addresses(self, source: tuple[Ip, ...], remote: tuple[Ip, ...], destination: tuple[Ip, ...]) -> None:
        """Replace the request's addresses."""
        self._source_ips, self._remote_ips, self._destination_ips = source, remote, destination

    def with_embedded_ipv4(self) -> Inputs | None:
        """This view with each IPv6 address that embeds an IPv4 address replaced by it; None if no address does."""
        addresses = (self.source_ips, self.remote_ips, self.destination_ips)
        if all(len(readings) < 2 for readings in addresses):
            return None
        if self._embedded_ipv4 is None:
            self._embedded_ipv4 = self.with_identity(self.identity)
            self._embedded_ipv4.set_addresses(*(readings[-1:] for readings in addresses))
        return self._embedded_ipv4

    def respelled(self, parts: RespelledParts) -> tuple[Inputs, ...]:
        """This view in every other way in which an upstream may read `parts`: decoded, without port."""
        others = self._respelled.get(parts)
        if others is None:
            raw = (self.path, self.query, self.host)
            paths = encodable(self.paths(True)) if parts.path else raw[:1]
            queries = encodable(query_readings(self.query)) if parts.query else raw[1:2]
            hosts = host_readings(self.host, parts.port) if parts.host and self.host else raw[2:]
            ways = (way for way in product(paths, queries, hosts) if way != raw)
            others = self._respelled[parts] = tuple(map(self._read_as, ways))
        return others

    def _read_as(self, reading: tuple[str, str, str | None]) -> Inputs:
        other = Inputs(self.request, self.identity, self.options, self.now, self.stages, self.open_facts)
        other.path, other._query, other.host = reading
        other.path_as_received = reading[:1]
        return other
