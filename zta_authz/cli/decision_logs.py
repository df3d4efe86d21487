"""Read decision records as requests that can be decided again.

A record has the method, path, host, addresses, verified peer, issuer and subject of the token, API client and token
binding. It does not have headers, query, other claims, server name or metadata, by design: rules on these can't be
decided from a log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from zta_authz.audit.record import MAX_TEXT_CHARACTERS, SCHEMA
from zta_authz.cli.recorded_facts import ReplayFacts, reads_fact
from zta_authz.cli.request_files import parse_time
from zta_authz.model.identity import ApiClient, Binding, Identity, Peer, PeerTrust, Token
from zta_authz.model.request import NO_ADDRESS, Address, Headers, RequestAttributes
from zta_authz.model.spiffe import SpiffeId
from zta_authz.pdp.shadow import BY_POLICY
from zta_authz.policy.rules.clauses import AddressClause, PortClause, RequestPrincipalClause, TextClause
from zta_authz.policy.rules.dimensions import (
    API_CLIENT,
    API_SCOPES,
    DESTINATION_IP,
    HOST,
    METHOD,
    PATH,
    PEER,
    REMOTE_IP,
    SOURCE_IP,
    ClaimDimension,
)
from zta_authz.policy.rules.extra_clauses import TimeClause
from zta_authz.policy.rules.facts import no_facts
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.require import BoundClause, MaxAgeClause
from zta_authz.policy.rules.require_authentication import AuthenticationClause

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from zta_authz.model.options import Options
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.fact_reader import FactModels
    from zta_authz.policy.rules.facts import OpenFacts

_HASHED: Final = "hmac-sha256:"
_CUT: Final = "..."
_TEXTS: Final = (
    *("decision_id", "time", "verdict", "reason", "policy", "principal", "token_subject", "token_issuer", "method"),
    *("host", "path", "source", "destination"),
)
_OF_TOKEN: Final = frozenset(("token_issuer", "token_subject"))


class NotADecision(Exception):
    """The line is not a decision that can be replayed. The message says why."""


@dataclass(frozen=True, slots=True)
class RecordedDecision:
    """One recorded decision. `unknown` names the fields that were masked or truncated."""

    fields: dict[str, Any]
    now: float
    unknown: frozenset[str]

    @property
    def by_policy(self) -> bool:
        """Whether policies decided. Otherwise the request was refused before policies were evaluated."""
        return self.fields["reason"] in BY_POLICY

    def inputs(self, options: Options, at: float | None = None, facts: OpenFacts = no_facts) -> Inputs:
        """Return the recorded request as input of rules. `at` replaces the recorded time; `facts` opens its facts."""
        return Inputs(self._request(), self._identity(), options, self.now if at is None else at, None, facts)

    def facts(self, models: FactModels) -> ReplayFacts:
        """The recorded facts, for policies with these `models`."""
        located = self.unknown.isdisjoint(("method", "path", "host", "destination")) and bool(self.fields["path"])
        return ReplayFacts(self.fields, models, located=located)

    def known(self, inputs: Inputs, facts: ReplayFacts) -> Callable[[Clause], bool]:
        """Return a function that says whether a clause can be decided for these `inputs` and `facts`."""
        return lambda clause: facts.knows(clause) if reads_fact(clause) else _is_known(self, clause, inputs)

    def _request(self) -> RequestAttributes:
        fields = self.fields
        return RequestAttributes(
            method=fields["method"],
            path=fields["path"],
            host=fields["host"],
            headers=Headers({}, exact=True),
            source=_address(fields["source"]),
            destination=_address(fields["destination"]),
        )

    def _identity(self) -> Identity:
        fields = self.fields
        principal, issuer, subject = fields["principal"], fields["token_issuer"], fields["token_subject"]
        token = Token(issuer, subject, {"iss": issuer, "sub": subject}) if issuer or subject else None
        client, binding = fields.get("api_client"), fields.get("binding")
        return Identity(
            Peer((principal,), _spiffe_id(principal), PeerTrust.CERTIFICATE) if principal else None,
            token,
            (token,) if token is not None else (),
            binding=Binding(binding) if binding in tuple(Binding) else None,
            api_client=ApiClient(client) if isinstance(client, str) and client else None,
        )


def parse_record(line: bytes, masked: Collection[str]) -> RecordedDecision:
    """Parse one line. `masked` are the fields that the settings mask. Raises `NotADecision` or ValueError.

    Lines may come from anybody: nesting that is too deep and values of other types than a record has are a ValueError.
    """
    try:
        fields = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("schema"), str):
        raise ValueError("not a record")
    if fields["schema"] != SCHEMA:
        if fields["schema"].startswith("zta.dev/audit-log/"):
            raise NotADecision("an event of the log")
        raise ValueError("a record of another schema")
    if "time" not in fields:
        raise NotADecision("a replacement for a record that could not be encoded")
    if not all(isinstance(fields.get(name), str) for name in _TEXTS):
        raise ValueError("a record without its fields")
    if not isinstance(fields.get("rule_name", ""), str) or type(fields.get("rule")) not in (int, type(None)):
        raise ValueError("a record whose rule is not a rule")
    unknown = {name for name in _TEXTS if name in masked or _is_masked(fields[name])}
    return RecordedDecision(fields, parse_time(fields["time"]), frozenset(unknown | (set(masked) & {"api_client"})))


def _is_masked(text: str) -> bool:
    return text.startswith(_HASHED) or text.endswith(_CUT) or "\\ud" in text or len(text) >= MAX_TEXT_CHARACTERS


def _address(text: str) -> Address:
    ip, _, port = text.rpartition(":")
    known = ip and port.isascii() and port.isdigit() and len(port) <= 5
    return Address(ip.strip("[]"), int(port)) if known else NO_ADDRESS


def _spiffe_id(text: str) -> SpiffeId | None:
    try:
        return SpiffeId.parse(text)
    except ValueError:
        return None


def _is_known(recorded: RecordedDecision, clause: Clause, inputs: Inputs) -> bool:
    unknown, has_token = recorded.unknown, inputs.identity.token is not None
    match clause:
        case TextClause():
            return _text_is_known(recorded, clause, inputs)
        case RequestPrincipalClause():
            pair = inputs.request_principal
            return not unknown & _OF_TOKEN and (pair is None or all(pair))
        case PortClause():
            return "destination" not in unknown and bool(recorded.fields["destination"])
        case AddressClause():
            return _address_is_known(recorded, clause, inputs)
        case TimeClause():
            return True
        case BoundClause():
            return "binding" in recorded.fields
        case MaxAgeClause() | AuthenticationClause():
            return not has_token and not unknown & _OF_TOKEN
    return False


def _text_is_known(recorded: RecordedDecision, clause: TextClause, inputs: Inputs) -> bool:
    dimension, unknown = clause.dimension, recorded.unknown
    if dimension is METHOD:
        return "method" not in unknown
    if dimension is PATH:
        return "path" not in unknown and bool(recorded.fields["path"])
    if dimension is HOST:
        return "host" not in unknown
    if dimension is PEER:
        if "principal" in unknown:
            return False
        # Under Istio's semantics a peer may have several names and one is recorded: a match is certain, a miss is not.
        return inputs.strict or inputs.identity.peer is None or clause.holds(inputs, False) is not clause.negated
    if dimension is API_CLIENT:
        return "api_client" in recorded.fields and "api_client" not in unknown
    if dimension is API_SCOPES:
        return recorded.fields.get("api_client") == "" and "api_client" not in unknown
    if isinstance(dimension, ClaimDimension):
        return inputs.identity.token is None and not unknown & _OF_TOKEN
    return False


def _address_is_known(recorded: RecordedDecision, clause: AddressClause, inputs: Inputs) -> bool:
    if clause.dimension is DESTINATION_IP:
        return "destination" not in recorded.unknown
    direct = inputs.options.use_remote_address and inputs.options.xff_num_trusted_hops == 0
    if clause.dimension is SOURCE_IP or (clause.dimension is REMOTE_IP and direct):
        return "source" not in recorded.unknown
    return False  # the client's address comes from headers, which are not recorded
