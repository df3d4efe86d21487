"""Make clauses from fields of sources and operations and from the keys of `when`.

A value that Istio would silently drop, which widens a DENY, is a fault here. Sources of the forms: Istio's
`pilot/pkg/security/authz/model`, its API documentation, and measurements of Envoy 1.40.
"""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from zta_authz.model.percent import percent_decoded, utf8_bytes
from zta_authz.policy.rules import identity_matchers as idm, matchers as m
from zta_authz.policy.rules.clauses import AddressClause, Clause, PortClause, RequestPrincipalClause, TextClause
from zta_authz.policy.rules.dimensions import (
    API_CLIENT,
    API_SCOPES,
    DESTINATION_IP,
    HOST,
    METHOD,
    PATH,
    PEER,
    REMOTE_IP,
    SNI,
    SOURCE_IP,
    AddressDimension,
    ClaimDimension,
    Dimension,
    FactDimension,
    HeaderDimension,
    MetadataDimension,
)
from zta_authz.policy.rules.fact_values import KEYS as FACT_KEYS, check_values, reader_of
from zta_authz.policy.rules.path_templates import path_matcher
from zta_authz.policy.rules.trust_domains import expand_aliases

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Scalar

_PRESENT: Final = m.Present()
_ONE_LINE: Final = m.Present(one_line=True)
_HEADER_NAME: Final = re.compile(r":?[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Escapes that decode to another path, or to characters with a meaning in a rule's value.
_NEVER_DECODED: Final = re.compile(r"%(?:2[35AaFf]|3[BbFf]|5[Cc]|7[BbDd]|[01][0-9A-Fa-f]|7[Ff]|(?![0-9A-Fa-f]{2}))")
_KEYED: Final = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)(.*)", re.DOTALL)
REJECTED_KEYS: Final = ("destination.labels", "destination.name", "destination.namespace", "destination.user")


class ClauseFactory:
    """Makes the clauses of one compilation. Equal dimensions, matchers and clauses become one object.

    `domains` has the mesh's trust domain and its aliases.
    """

    def __init__(self, domains: tuple[str, ...], *, strict: bool) -> None:
        self._domains = domains
        self._strict = strict
        self._interned: dict[Hashable, Any] = {}

    def intern(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The object for `key`, made on first use."""
        made = self._interned.get(key)
        if made is None:
            made = self._interned[key] = make()
        return made

    def field(
        self,
        reader: Reader,
        name: str,
        negated: bool,
        values: list[Scalar],
        namespace: str,
        label: str = "",
        *,
        wide: bool = False,
    ) -> Clause | None:
        """The clause for a field of a source or operation; None, with faults, if a value is invalid.

        `wide` also matches other spellings of a path, so that they don't get past the rule.
        """
        label = label or (f"not{name[0].upper()}{name[1:]}" if negated else name)
        match name:
            case "requestPrincipals":
                return self._request_principals(values, negated, label)
            case "ports":
                return self._ports(reader, values, negated, label)
            case "ipBlocks":
                return self._addresses(reader, SOURCE_IP, values, negated, label)
            case "remoteIpBlocks":
                return self._addresses(reader, REMOTE_IP, values, negated, label)
            case "serviceAccounts":
                return self._service_accounts(reader, values, negated, label, namespace)
            case "principals":
                return self._principals(values, negated, label)
            case "trustDomains":
                return self._trust_domains(reader, values, negated, label)
        dimension, make = _TEXT_FIELDS[name]
        if name == "paths" and wide and self._strict:
            return self._texts(reader, dimension, _every_spelling, values, negated, label)
        return self._texts(reader, dimension, make, values, negated, label)

    def condition(
        self, reader: Reader, key: Scalar, values: list[Scalar], negated: bool, namespace: str
    ) -> Clause | None:
        """The clause for a `when` key with its `values` or `notValues`; None, with faults, if one is invalid."""
        name = key.value
        label = f"{name} notValues" if negated else name
        plain = _WHEN_FIELDS.get(name)
        if plain is not None:
            return self.field(reader, plain, negated, values, namespace, label)
        if name in _WHEN_TEXTS:
            dimension, make = _WHEN_TEXTS[name]
            return self._texts(reader, dimension, make, values, negated, label)
        if name == "destination.ip":
            return self._addresses(reader, DESTINATION_IP, values, negated, label)
        if name.startswith(("request.headers", "request.auth.claims", "experimental.envoy.filters.")):
            return self._keyed(reader, key, values, negated, label)
        _refuse_key(reader, key)
        return None

    def own_condition(self, reader: Reader, key: Scalar, values: list[Scalar], negated: bool) -> Clause | None:
        """The clause for a key that only AccessPolicy has: `CLIENT_KEYS` and facts; None, with a fault, for others."""
        name = key.value
        label = f"{name} notValues" if negated else name
        dimension = CLIENT_KEYS.get(name)
        read = reader_of(name)
        if read is not None:
            check_values(reader, name, values)
            dimension = self.intern((FactDimension, name), lambda: FactDimension(name, read))
        if dimension is None:
            _refuse_key(reader, key)
            return None
        return self._texts(reader, dimension, m.string_matcher, values, negated, label)

    def _texts(
        self, reader: Reader, dimension: Dimension, make: Callable[[str], m.Matcher | tuple[m.Matcher, ...]],
        values: list[Scalar], negated: bool, label: str,
    ) -> Clause | None:  # fmt: skip
        matchers: list[m.Matcher] = []
        good = True
        for value in values:
            try:
                made = self.intern((make, value.value), partial(make, value.value))
                matchers += made if isinstance(made, tuple) else (made,)
            except ValueError as error:
                reader.fault(value, f"`{value.value}` in `{label}`: {error}", "correct the value: it is not skipped")
                good = False
        return self._text_clause(dimension, tuple(matchers), negated, label) if good and matchers else None

    def _pair(self, value: str) -> idm.RequestPrincipal:
        matcher = idm.request_principal_matcher(value)
        return replace(matcher, issuer=self._adapt(matcher.issuer), subject=self._adapt(matcher.subject))

    def _adapt(self, matcher: m.Matcher) -> m.Matcher:
        """Adapt `*` to Istio semantics, where Envoy matches it within one line."""
        return _ONE_LINE if not self._strict and matcher == _PRESENT else matcher

    def _text_clause(
        self, dimension: Dimension, matchers: tuple[m.Matcher, ...], negated: bool, label: str
    ) -> TextClause:
        matchers = tuple(self._adapt(matcher) for matcher in matchers)
        key = (dimension, matchers, negated, label)
        clause: TextClause = self.intern(
            key, lambda: TextClause(dimension, matchers, negated, label, dimension.cost + len(matchers) // 8)
        )
        return clause

    def _principals(self, values: list[Scalar], negated: bool, label: str) -> Clause:
        names = [name for value in values for name in expand_aliases(value.value, self._domains)]
        matchers = tuple(self.intern((idm.principal_matcher, n), partial(idm.principal_matcher, n)) for n in names)
        return self._text_clause(PEER, matchers, negated, label)

    def _trust_domains(self, reader: Reader, values: list[Scalar], negated: bool, label: str) -> Clause | None:
        matchers: list[m.Matcher] = []
        good = True
        for value in values:
            names = self._domains if value.value in self._domains else (value.value,)
            try:
                matchers += [
                    self.intern((idm.trust_domain_matcher, n), partial(idm.trust_domain_matcher, n)) for n in names
                ]
            except ValueError as error:
                reader.fault(value, f"`{value.value}` in `{label}`: {error}", "write it like `cluster.local`")
                good = False
        return self._text_clause(PEER, tuple(matchers), negated, label) if good and matchers else None

    def _service_accounts(
        self, reader: Reader, values: list[Scalar], negated: bool, label: str, namespace: str
    ) -> Clause | None:
        matchers: list[m.Matcher] = []
        for value in values:
            first, slash, account = value.value.partition("/")
            space, name = (first, account) if slash else (namespace, first)
            if not space or not name or "/" in name or "*" in value.value:
                hint = "write `account` or `namespace/account`, without `*`"
                reader.fault(value, f"`{value.value}` in `{label}` is not a service account", hint)
                continue
            matchers.append(self.intern((idm.ServiceAccount, space, name), partial(idm.ServiceAccount, space, name)))
        return (
            self._text_clause(PEER, tuple(matchers), negated, label)
            if len(matchers) == len(values) and matchers
            else None
        )

    def _request_principals(self, values: list[Scalar], negated: bool, label: str) -> Clause:
        texts = tuple(value.value for value in values)
        clause: Clause = self.intern(
            (RequestPrincipalClause, texts, negated, label),
            lambda: RequestPrincipalClause(tuple(self._pair(t) for t in texts), negated, label),
        )
        return clause

    def _ports(self, reader: Reader, values: list[Scalar], negated: bool, label: str) -> Clause | None:
        ports = set()
        for value in values:
            try:
                ports.add(m.parse_port(value.value))
            except ValueError as error:
                reader.fault(value, f"`{value.value}` in `{label}`: {error}", 'write it like "8080"')
        if len(ports) == 0:
            return None
        clause: Clause = self.intern(
            (PortClause, frozenset(ports), negated, label), lambda: PortClause(frozenset(ports), negated, label)
        )
        return clause

    def _addresses(
        self, reader: Reader, dimension: AddressDimension, values: list[Scalar], negated: bool, label: str
    ) -> Clause | None:
        networks = []
        for value in values:
            try:
                networks.append(m.parse_network(value.value))
            except ValueError as error:
                hint = "write it like `10.0.0.0/8`, `192.0.2.1` or `2001:db8::/32`"
                reader.fault(value, f"`{value.value}` in `{label}`: {error}", hint)
        if not networks:
            return None
        blocks = tuple(networks)
        clause: Clause = self.intern(
            (AddressClause, dimension, blocks, negated, label),
            lambda: AddressClause(dimension, blocks, negated, label),
        )
        return clause

    def _keyed(self, reader: Reader, key: Scalar, values: list[Scalar], negated: bool, label: str) -> Clause | None:
        """`request.headers[…]`, `request.auth.claims[…]…` and `experimental.envoy.filters.…[…]`."""
        parts = _KEYED.fullmatch(key.value)
        name, brackets, rest = parts.groups() if parts is not None else (key.value, "", "")
        if not brackets or brackets == "[]":
            reader.fault(key, f"`{key.value}` has no name in brackets", f"write `{name}[name]`")
            return None
        path = tuple(brackets[1:-1].split("]["))
        if name == "request.headers":
            return self._header(reader, key, path, rest, values, negated, label)
        if not key.value.endswith("]"):
            reader.fault(key, f"`{key.value}` does not end with `]`", f"write `{name}[name]`")
            return None
        whole = key.value[len(name) + 1 : -1]
        if rest or "" in path:
            path = (whole,)  # Istio reads a malformed nesting as one key that contains the brackets
        if name == "request.auth.claims":
            dimension = self.intern((ClaimDimension, path), lambda: ClaimDimension(path))
            return self._texts(reader, dimension, m.string_matcher, values, negated, label)
        if not name.startswith("experimental.envoy.filters."):
            _refuse_key(reader, key)
            return None
        # Istio never nests metadata keys: `[a][b]` is the key `a][b`.
        return self._metadata(reader, name.removeprefix("experimental."), (whole,), values, negated, label)

    def _header(
        self, reader: Reader, key: Scalar, path: tuple[str, ...], rest: str, values: list[Scalar], negated: bool,
        label: str,
    ) -> Clause | None:  # fmt: skip
        if len(path) != 1 or rest or not _HEADER_NAME.fullmatch(path[0]):
            reader.fault(key, f"`{key.value}` does not name one header", "write `request.headers[x-name]`")
            return None
        header = path[0].lower()
        dimension = self.intern((HeaderDimension, header), lambda: HeaderDimension(header))
        return self._texts(reader, dimension, m.header_matcher, values, negated, label)

    def _metadata(
        self, reader: Reader, filter_name: str, path: tuple[str, ...], values: list[Scalar], negated: bool, label: str
    ) -> Clause | None:
        listed = [v.value.startswith("[") and v.value.endswith("]") for v in values]
        if any(listed) and not all(listed):
            reader.fault(values[0], f"`{label}` mixes list values `[x]` with plain ones", "write two conditions")
            return None
        in_list = bool(listed) and listed[0]
        key = (MetadataDimension, filter_name, path, in_list)
        dimension = self.intern(key, lambda: MetadataDimension(filter_name, path, in_list))
        make = _in_list if in_list else m.string_matcher
        return self._texts(reader, dimension, make, values, negated, label)


def _every_spelling(value: str) -> tuple[m.Matcher, ...]:
    """Match the path as written and, if it is percent-encoded, decoded, as `Inputs.paths` does for requests."""
    written = path_matcher(value)
    if "%" not in value or _NEVER_DECODED.search(value):
        return (written,)
    decoded = percent_decoded(utf8_bytes(value)).decode("utf-8", "surrogateescape")
    try:
        return (written, path_matcher(decoded))
    except ValueError:  # the decoded text is not a valid template
        return (written,)


def _refuse_key(reader: Reader, key: Scalar) -> None:
    """Report a key that this kind of policy does not have."""
    name = key.value
    if name in CLIENT_KEYS or reader_of(name) is not None:
        hint = "write this policy as an AccessPolicy (`apiVersion: zta.dev/v1`): Istio's kinds have no such keys"
        reader.fault(key, f"condition key `{name}` is for AccessPolicy only", hint)
        return
    near = get_close_matches(name, (*KNOWN_KEYS, *OWN_KEYS), 1, 0.88)
    hint = f"known keys: {', '.join(KNOWN_KEYS)}; in an AccessPolicy also {', '.join(OWN_KEYS)}"
    message = f"unknown condition key `{name}`"
    if name.startswith(REJECTED_KEYS):
        message = f"condition key `{name}` is not supported by Istio either"
    elif near:
        hint = f"did you mean `{near[0]}`? {hint}"
    reader.fault(key, message, hint)


def _in_list(value: str) -> m.Matcher:
    if len(value) < 3:
        raise ValueError("the brackets are empty")
    return m.string_matcher(value[1:-1])


_TEXT_FIELDS: Final[dict[str, tuple[Dimension, Callable[[str], m.Matcher]]]] = {
    "namespaces": (PEER, idm.namespace_matcher),
    "hosts": (HOST, m.host_matcher),
    "methods": (METHOD, m.string_matcher),
    "paths": (PATH, path_matcher),
}
_WHEN_FIELDS: Final[dict[str, str]] = {
    "source.ip": "ipBlocks",
    "remote.ip": "remoteIpBlocks",
    "source.namespace": "namespaces",
    "source.principal": "principals",
    "source.serviceAccount": "serviceAccounts",
    "source.trustDomain": "trustDomains",
    "request.auth.principal": "requestPrincipals",
    "destination.port": "ports",
}
_WHEN_TEXTS: Final[dict[str, tuple[Dimension, Callable[[str], m.Matcher]]]] = {
    "connection.sni": (SNI, m.string_matcher),
    "request.auth.audiences": (ClaimDimension(("aud",)), m.string_matcher),
    "request.auth.presenter": (ClaimDimension(("azp",)), m.string_matcher),
}
CLIENT_KEYS: Final[dict[str, Dimension]] = {"zta.apiClient": API_CLIENT, "zta.apiScopes": API_SCOPES}
"""Keys of `when` that only AccessPolicy has: the API client and its scopes."""
OWN_KEYS: Final = (*CLIENT_KEYS, *FACT_KEYS, "zta.device.FIELD")
"""All keys of `when` that only AccessPolicy has."""
KNOWN_KEYS: Final = (
    *_WHEN_FIELDS, *_WHEN_TEXTS, "destination.ip", "request.headers[name]", "request.auth.claims[name]",
    "experimental.envoy.filters.NAME[key]",
)  # fmt: skip
