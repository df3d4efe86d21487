"""One request as rules see it: attributes and verified identity, read through the chosen semantics."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final

from zta_authz.model.changed_headers import folded_name, has_odd_names
from zta_authz.model.claims import claim_at, other_texts
from zta_authz.model.percent import percent_decoded, utf8_bytes
from zta_authz.policy.cel.cost import MAX_UNITS, ConditionMemory
from zta_authz.policy.rules.facts import no_facts
from zta_authz.policy.rules.matchers import ascii_lower, cut_query
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
    from collections.abc import Callable, Iterable, Mapping

    from zta_authz.model.addresses import Ip
    from zta_authz.model.identity import Identity
    from zta_authz.model.options import Options
    from zta_authz.model.request import RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.policy.rules.facts import RequestFacts
    from zta_authz.policy.rules.spellings import Respelled

_BLANKS: Final = " \t"
_SPACE_DELIMITED: Final = frozenset(("scope", "permission"))


class Inputs:
    """What matchers are applied to. Made once a request; nothing here changes it.

    `now` is in seconds since the epoch. `names` are the peer's; `path` is without query and fragment, `host` the
    authority in lower case, None if absent. `stages` notes the time that conditions take, where it is wanted.
    """

    __slots__ = (
        "_claim_texts", "_claims", "_conditions", "_destination_ips", "_facts", "_forwarded_path", "_hosts", "_meant",
        "_paths", "_query", "_remote_ips", "_respelled", "_sni", "_source_ips", "_spellings", "_trimmed", "claims",
        "host", "identity", "method", "names", "now", "open_facts", "options", "path", "request", "request_principal",
        "stages", "strict",
    )  # fmt: skip

    def __init__(
        self,
        request: RequestAttributes,
        identity: Identity,
        options: Options,
        now: float = 0.0,
        stages: Stages | None = None,
        open_facts: Callable[[Inputs], RequestFacts] = no_facts,
    ) -> None:
        self.request = request
        self.identity = identity
        self.options = options
        self.now = now
        self.stages = stages
        self.open_facts = open_facts
        self._facts: RequestFacts | None = None
        self.strict = options.strict
        self.method = request.method
        path = request.path
        self.path = cut_query(path) if "?" in path or "#" in path else path
        self.host: str | None = ascii_lower(request.host)
        if not self.host and "host" not in request.headers:
            self.host = None
        peer, token = identity.peer, identity.token
        self.names = peer.names if peer is not None else ()
        self.claims: Mapping[str, Any] | None = None
        self.request_principal: tuple[str, str] | None = None
        if token is not None:
            self.claims = token.claims
            self.request_principal = token.names
        self._conditions: ConditionMemory | None = None
        # What rules ask for again and again is read and transformed once a request.
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
        self._meant: Inputs | None = None
        self._query: str | None = None
        self._respelled: dict[Respelled, tuple[Inputs, ...]] = {}

    @property
    def facts(self) -> RequestFacts:
        """What the operator's data says of this request's network, device and trust."""
        if self._facts is None:
            self._facts = self.open_facts(self)
        return self._facts

    def with_identity(self, identity: Identity) -> Inputs:
        """The same request with another of its tokens."""
        return Inputs(self.request, identity, self.options, self.now, self.stages, self.open_facts)

    @property
    def conditions(self) -> ConditionMemory:
        """What conditions keep for this request."""
        self._conditions = self._conditions or ConditionMemory()
        return self._conditions

    def charge_conditions_to(self, other: Inputs) -> None:
        """Count what conditions cost here together with what they cost on `other`, of the same request."""
        if other._conditions is not None:
            self.conditions.units = other._conditions.units

    def follow_conditions_of(self, other: Inputs, looks: int) -> None:
        """Let conditions judge one of `looks` further looks at `other`'s request, within what is left of their cost."""
        self.charge_conditions_to(other)
        self.conditions.free = other.conditions.free // looks

    def restore_condition_units(self) -> None:
        """Let conditions cost again what they may cost at first."""
        if self._conditions is not None:
            self._conditions.units = MAX_UNITS

    def grant_condition_units(self, most: int) -> int:
        """Let conditions cost again what they may at first, but no more than `most`; gives what that is."""
        self.conditions.units = min(MAX_UNITS, most)
        return self.conditions.units

    def any_header_unclear(self) -> bool:
        """Whether any header is as `header_unclear` says, or has a name that may be read as another."""
        memory = self.conditions
        if memory.header_unclear is None:
            odd = has_odd_names(self.request.headers.listing())  # which applications may take for others
            memory.header_unclear = odd or any(self.header_unclear(name) for name in self.header_names())
        return memory.header_unclear

    def header_unclear(self, name: str) -> bool:
        """Whether a header has several values, or may have: a value with blanks around it counts as two."""
        if len(self.trimmed_header(name)) > 1 or self.ambiguous_header(name):
            return True
        return bool(self.other_spellings(name, folded_name(name)))

    @property
    def query(self) -> str:
        """What follows the first `?` of the path, as it came."""
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
        """The authority as it came; with `wide` in strict reading also without port and trailing dot."""
        if self.host is None:
            return ()
        if not (wide and self.strict):
            return (self.host,)
        if self._hosts is None:
            self._hosts = host_variants(self.host)
        return self._hosts

    def paths(self, wide: bool) -> tuple[str, ...]:
        """The path as it came; with `wide` in strict reading also decoded, as an upstream may read it.

        What is decoded is UTF-8 to nearly every upstream, and Latin-1 to some.
        """
        if not (wide and self.strict and "%" in self.path):
            return (self.path,)
        if self._paths is None:  # made once, whatever number of rules ask
            data = percent_decoded(utf8_bytes(self.path))
            utf8, latin1 = data.decode("utf-8", "surrogateescape"), data.decode("latin-1")
            self._paths = tuple(dict.fromkeys((self.path, utf8, utf8.rstrip(" "), latin1, latin1.rstrip(" "))))
        return self._paths

    def header(self, name: str) -> tuple[str, ...]:
        """Each value of a header as it goes on after authentication: without tokens that are not forwarded."""
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
        """Each value as it goes on, and without the blanks around it; in strict reading `:path` decoded too.

        HTTP/2 carries them through Envoy (measured, 1.40), and an upstream that is asked over HTTP/1 never sees them
        (RFC 9110 section 5.5).
        """
        found = self._trimmed.get(name)
        if found is None:
            values = self.header(name)
            if name == ":path" and self.strict:
                values = target_readings(values)
            trimmed = tuple(value.strip(_BLANKS) for value in values)
            found = values if trimmed == values else tuple(dict.fromkeys((*values, *trimmed)))
            self._trimmed[name] = found
        return found

    def other_spellings(self, name: str, folded: str) -> tuple[str, ...]:
        """The request's headers that an application may take for `name`: `x_role` and `x.role` for `x-role`.

        `folded` is `folded_name(name)`. What authentication sets or removes is not taken for another: where it goes on,
        other spellings are removed.
        """
        if self._spellings is None:
            self._spellings = odd_spellings(self.request.headers)
        found = self._spellings.get(folded, ())
        if name != folded and folded in self.request.headers:
            found = (*found, folded)
        if not found or name in PSEUDO_HEADERS or self._is_replaced(name):
            return ()
        return tuple(other for other in found if other != name)

    def _is_replaced(self, name: str) -> bool:
        changes = self.identity.changes
        return name in changes.remove_headers or any(header == name for header, _ in changes.set_headers)

    def ambiguous_header(self, name: str) -> bool:
        """True where repeats may have been joined, so that nobody can tell what the values were (strict reading).

        What authentication sets or removes is known whatever the client sent, and a pseudo-header has one value.
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
        """Every header that goes on after authentication; those it removes may be among them."""
        changed = self.identity.changes.set_headers
        names = self.request.headers.names()
        return {*names, *(name for name, _ in changed)} if changed else names

    def folded_header_names(self) -> Iterable[str]:
        """The names of `header_names`, each as an application may read it."""
        names = self.header_names()
        if not self.identity.changes.set_headers and not has_odd_names(self.request.headers.listing()):
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
        """The path with its query, without the parameters that authentication takes out."""
        if self._forwarded_path is None:
            path = self.request.path
            for parameter in self.identity.changes.remove_query:
                path = without_parameter(path, parameter)
            self._forwarded_path = path
        return self._forwarded_path

    def claim(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """The string, or each string of the list, at a claim path; () for everything else."""
        found = self._claims.get(path)
        if found is None:
            found = self._claims[path] = self._read_claim(path)
        return found

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
        """As `claim`, and what is no string as a header would show it: `true` and 7 are read by applications too."""
        found = self._claim_texts.get(path)
        if found is None:
            others = other_texts(claim_at(self.claims or {}, path))
            found = self._claim_texts[path] = (*self.claim(path), *others)
        return found

    def _spaced(self) -> tuple[str, ...]:
        token = self.identity.token
        return token.space_delimited_claims if token is not None else ()

    def metadata(self, filter_name: str, path: tuple[str, ...]) -> Any:
        """The dynamic metadata value of one filter at a path, None where absent."""
        value: Any = self.request.metadata.get(filter_name)
        for step in path:
            value = value.get(step) if hasattr(value, "get") else None
        return value

    # Each address as it came and, where it stands for an IPv4 address, that one; () where it is not there, or unclear.

    @property
    def source_ips(self) -> tuple[Ip, ...]:
        """The direct peer of the proxy."""
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

        Where the entry that counts is unreadable or missing Envoy takes the direct peer, a proxy of one's own perhaps;
        in strict reading nobody can tell then.
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
        # With use_remote_address Envoy has already appended the peer's own address, so both count alike.
        index = len(entries) - 1 - hops
        found = address_readings(entries[index].strip(" \t\v\f")) if index >= 0 else NO_ADDRESSES
        return found if found or self.strict else self.source_ips

    def take_addresses(self, source: tuple[Ip, ...], remote: tuple[Ip, ...], destination: tuple[Ip, ...]) -> None:
        """Take these for the request's addresses."""
        self._source_ips, self._remote_ips, self._destination_ips = source, remote, destination

    def as_meant(self) -> Inputs | None:
        """The same with IPv4 addresses for IPv6 addresses that stand for them; None where there are none."""
        found = (self.source_ips, self.remote_ips, self.destination_ips)
        if all(len(each) < 2 for each in found):
            return None
        if self._meant is None:
            self._meant = self.with_identity(self.identity)
            self._meant.take_addresses(*(each[-1:] for each in found))
        return self._meant

    def respelled(self, what: Respelled) -> tuple[Inputs, ...]:
        """The same in each other way in which an upstream may read `what` in strict reading: decoded, without port."""
        found = self._respelled.get(what)
        if found is None:
            came = (self.path, self.query, self.host)
            paths = encodable(self.paths(True)) if what.path else came[:1]
            queries = encodable(query_readings(self.query)) if what.query else came[1:2]
            ways = product(paths, queries, host_readings(self.host, what.port) if what.host and self.host else came[2:])
            found = self._respelled[what] = tuple(self._read_as(way) for way in ways if way != came)
        return found

    def _read_as(self, way: tuple[str, str, str | None]) -> Inputs:
        made = Inputs(self.request, self.identity, self.options, self.now, self.stages, self.open_facts)
        made.path, made._query, made.host = way
        return made
