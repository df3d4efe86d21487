"""Read `zta.dev/v1` AccessEntitlement and AccessGrant: just-in-time access, and grants that come as documents."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from zta_authz.model.access import LEAST_GRANT, BreakGlass, EntitlementTerms, Grant, GrantDocument, Subject
from zta_authz.model.documents import Selector
from zta_authz.model.spiffe import SpiffeId
from zta_authz.policy.cel.pattern import pattern_fault
from zta_authz.policy.documents.authorization_policy import read_conditions, read_operations, read_sources
from zta_authz.policy.documents.spec import EntitlementSpec, FieldSpec, PolicySpec, RuleSpec, WhenSpec
from zta_authz.policy.rules.require_grant import is_entitlement_name
from zta_authz.policy.yaml.nodes import to_plain
from zta_authz.policy.yaml.values import duration, flag, moment, optional_text, whole_number

if TYPE_CHECKING:
    from zta_authz.errors import Fault
    from zta_authz.policy.documents.spec import DocumentHeader, DocumentSet
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Mapping, Node

MAX_APPROVER_GROUPS: Final = 8
MAX_APPROVERS: Final = 16
MAX_OPEN: Final = 1000
LONGEST_GRANT: Final = 90 * 86400.0
LONGEST_PENDING: Final = 30 * 86400.0
_DAY: Final = 86400.0
LONGEST_BREAK_GLASS: Final = _DAY
_FIELDS: Final = ("who", "when", "to", "maxDuration", "pendingFor", "reason", "approvers", "breakGlass", "maxOpen")
_GRANT_FIELDS: Final = ("entitlement", "subject", "from", "until", "reason")


def read_access_entitlement(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the entitlement to `documents`."""
    del warnings
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "AccessEntitlement.spec", _FIELDS)
    if not is_entitlement_name(f"{header.namespace}/{header.name}"):
        hint = "use lower-case letters, digits, `-` and `.`, as Kubernetes does: denials contain this name"
        reader.fault(header.document.get("metadata") or header.document, "the name can't be an entitlement's", hint)
    who_node = reader.required(spec, "who", "AccessEntitlement.spec")
    sources = [] if who_node is None else read_sources(reader, who_node, "who")
    conditions = _conditions(reader, spec)
    to = spec.get("to")
    operations = [] if to is None else read_operations(reader, to)
    reader.required(spec, "maxDuration", "AccessEntitlement.spec")
    counts, approvers = _approvers(header)
    emergency = spec.get("breakGlass")
    terms, emergency_policy = None, None
    if emergency is not None:
        terms, emergency_policy = _break_glass(header, emergency)
    if not approvers and emergency is None:
        hint = "add `approvers`, or `breakGlass`; access that needs no approval is an ALLOW rule"
        reader.fault(spec, "nobody can grant this entitlement", hint)
    required, pattern = _reason(reader, spec)
    documents.entitlements.append(
        EntitlementSpec(
            EntitlementTerms(
                duration(reader, spec, "maxDuration", _DAY, LONGEST_GRANT, LEAST_GRANT),
                duration(reader, spec, "pendingFor", _DAY, LONGEST_PENDING),
                required,
                pattern,
                tuple(counts),
                terms,
                whole_number(reader, spec, "maxOpen", 10, 1, MAX_OPEN),
            ),
            _policy(header, sources, conditions),
            _policy(header, sources, conditions, operations),
            approvers,
            emergency_policy,
            hashlib.sha256(json.dumps(to_plain(spec), sort_keys=True).encode()).hexdigest(),
        )
    )


def read_access_grant(header: DocumentHeader, documents: DocumentSet, warnings: list[Fault]) -> None:
    """Add the grant to `documents`. Whether its entitlement exists is checked when all documents are known."""
    del warnings
    reader, spec = header.reader, header.spec
    reader.mapping(spec, "AccessGrant.spec", _GRANT_FIELDS)
    name_node = reader.required(spec, "entitlement", "AccessGrant.spec")
    name = None if name_node is None else reader.string(name_node, "entitlement")
    subject_node = reader.required(spec, "subject", "AccessGrant.spec")
    subject = None if subject_node is None else _subject(reader, subject_node)
    reader.required(spec, "until", "AccessGrant.spec")
    start, until = moment(reader, spec, "from", 0.0), moment(reader, spec, "until", 0.0)
    optional_text(reader, spec, "reason")
    if spec.get("from") is not None and start >= until > 0:
        reader.fault(spec.get("until") or spec, "the grant ends before it begins", "correct `from` or `until`")
    if name is None or subject is None:
        return
    entitlement = name if "/" in name else f"{header.namespace}/{name}"
    source = f"{header.namespace}/{header.name}"
    grant = Grant(f"document/{source}", entitlement, subject, start, until, source=source)
    at = reader.position(name_node or spec)
    documents.grants.append(GrantDocument(header.name, header.namespace, at, grant))


def _policy(
    header: DocumentHeader,
    sources: list[list[FieldSpec]],
    conditions: list[WhenSpec],
    operations: list[list[FieldSpec]] | None = None,
) -> PolicySpec:
    """An ALLOW policy with one rule. It decides nothing: only its rule is asked."""
    rule = RuleSpec(header.document, sources, operations or [], conditions)
    selector = Selector(header.namespace, {})
    return PolicySpec(
        "AccessEntitlement", header.name, header.namespace, "ALLOW", selector, [rule], False, header.document,
        header.reader,
    )  # fmt: skip


def _conditions(reader: Reader, section: Mapping) -> list[WhenSpec]:
    """The conditions beside a list of sources."""
    node = section.get("when")
    return [] if node is None else read_conditions(reader, node)


def _approvers(header: DocumentHeader) -> tuple[list[int], list[PolicySpec]]:
    reader, node = header.reader, header.spec.get("approvers")
    items = [] if node is None else reader.items(node, "approvers", "groups of approvers")
    if node is not None and len(items) > MAX_APPROVER_GROUPS:
        reader.fault(node, f"more than {MAX_APPROVER_GROUPS} groups of approvers", "let one of them approve for more")
    counts, policies = list[int](), list[PolicySpec]()
    for item in items:
        group = reader.mapping(item, "an entry of `approvers`", ("from", "when", "count"))
        sources = None if group is None else reader.required(group, "from", "an entry of `approvers`")
        if group is None or sources is None:
            continue
        counts.append(whole_number(reader, group, "count", 1, 1, MAX_APPROVERS))
        policies.append(_policy(header, read_sources(reader, sources, "from"), _conditions(reader, group)))
    return counts, policies


def _break_glass(header: DocumentHeader, node: Node) -> tuple[BreakGlass | None, PolicySpec | None]:
    reader = header.reader
    section = reader.mapping(node, "breakGlass", ("who", "when", "maxDuration", "reviewWithin"))
    who = None if section is None else reader.required(section, "who", "`breakGlass`")
    if section is None or who is None:
        return None, None
    terms = BreakGlass(
        duration(reader, section, "maxDuration", 1800.0, LONGEST_BREAK_GLASS, LEAST_GRANT),
        duration(reader, section, "reviewWithin", _DAY, LONGEST_PENDING),
    )
    return terms, _policy(header, read_sources(reader, who, "who"), _conditions(reader, section))


def _reason(reader: Reader, spec: Mapping) -> tuple[bool, str]:
    """Whether a reason is required (it is by default), and the pattern that all of it must match, "" for any."""
    node = spec.get("reason")
    section = None if node is None else reader.mapping(node, "reason", ("required", "pattern"))
    if section is None:
        return True, ""
    required = True if section.get("required") is None else flag(reader, section, "required")
    pattern_node = section.get("pattern")
    pattern = None if pattern_node is None else reader.string(pattern_node, "reason.pattern")
    if pattern_node is None or pattern is None:
        return required, ""
    wrong = pattern_fault(pattern)
    if wrong:
        reader.fault(pattern_node, f"`reason.pattern`: {wrong}"[:300], "write it in RE2's syntax, like `INC-\\d+.*`")
        return required, ""
    return required, pattern


def _subject(reader: Reader, node: Node) -> Subject | None:
    section = reader.mapping(node, "subject", ("issuer", "subject", "spiffeId"))
    if section is None:
        return None
    spiffe_node = section.get("spiffeId")
    if spiffe_node is not None:
        text = reader.string(spiffe_node, "subject.spiffeId")
        if section.get("issuer") is not None or section.get("subject") is not None:
            reader.fault(section, "a grant is for a SPIFFE ID or for a token's subject, not both", "write two grants")
        try:
            SpiffeId.parse(text or "")
        except ValueError as error:
            reader.fault(
                spiffe_node, f"`subject.spiffeId`: {error}", "write it like `spiffe://cluster.local/ns/a/sa/b`"
            )
            return None
        return Subject(spiffe_id=text or "")
    reader.required(section, "issuer", "`subject`")
    reader.required(section, "subject", "`subject`")
    issuer, subject = optional_text(reader, section, "issuer"), optional_text(reader, section, "subject")
    return None if issuer is None or subject is None else Subject(issuer, subject)
