"""Build the index that finds the lowest rule that holds without trying all rules.

Each rule is filed under the lookups of its most selective section: a clause, or a group in which every alternative has
a lookup. Rules that share a lookup are filed again by another section, so that each lookup leads to few rules. Rules
without a lookup (negations, `*`, patterns) go into a tree that shares their clauses, the most common first: a clause is
evaluated once, and if it fails, the rules below it are skipped.

Lookups only select candidates: every candidate rule is then evaluated in full.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeGuard

from zta_authz.model.pace import no_pause
from zta_authz.policy.rules.clauses import TextClause
from zta_authz.policy.rules.dimensions import AddressDimension, ClaimDimension, HeaderDimension
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.lookups import (
    BranchNode,
    CidrLookup,
    KeyedLookup,
    SharedClauseNode,
    ValueLookup,
)
from zta_authz.policy.rules.path_templates import TemplateTrie
from zta_authz.policy.rules.rule import LinearScan, RuleIndex
from zta_authz.policy.rules.spellings import PSEUDO_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zta_authz.model.pace import Pause
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.matchers import IndexKey
    from zta_authz.policy.rules.rule import IndexNode, Rule

    _Lookup = tuple[object, IndexKey]
    _Filed = dict[IndexKey, list[tuple[Rule, int]]]

_SMALL: Final = 8
"""Up to this many rules, trying each is faster than any lookup."""
_MAX_SPLIT_VALUES: Final = 8


@dataclass(frozen=True, slots=True)
class _Build:
    """State of one build: clauses of one value each that rules share, and the pause."""

    shared: dict[tuple[object, ...], Clause]
    pause: Pause


def index_rules(rules: list[Rule], *, deny: bool, pause: Pause = no_pause) -> RuleIndex:
    """The index over copies of `rules`, with their ids set."""
    numbered = tuple(_numbered(rules, pause))
    root = _build([(rule, 0) for rule in numbered], _Build({}, pause)) if numbered else None
    return RuleIndex(numbered, root, deny=deny)


def _numbered(rules: list[Rule], pause: Pause) -> Iterator[Rule]:
    for number, rule in enumerate(rules):
        pause()
        yield replace(rule, id=number)


def _sections(rule: Rule) -> Iterator[tuple[int, list[_Lookup]]]:
    """Each section of a rule that has lookups, with a bit that identifies it."""
    bit = 1
    for clause in rule.clauses:
        keys = clause.index_keys()
        if keys is not None:
            yield bit, [(keys[0], key) for key in keys[1]]
        bit <<= 1
    for group in rule.groups:
        lookups = _group_lookups(group)
        if lookups is not None:
            yield bit, lookups
        bit <<= 1


def _unused_sections(rule: Rule, used: int, pause: Pause) -> list[tuple[int, list[_Lookup]]]:
    pause()
    return [(bit, keys) for bit, keys in _sections(rule) if not bit & used]


def _group_lookups(group: Iterable[tuple[Clause, ...]]) -> list[_Lookup] | None:
    lookups: list[_Lookup] = []
    for alternative in group:
        for clause in alternative:
            keys = clause.index_keys()
            if keys is not None:
                lookups += [(keys[0], key) for key in keys[1]]
                break
        else:
            return None
    return lookups


def _build(filed: list[tuple[Rule, int]], build: _Build) -> IndexNode:
    """The node for `filed`: rules, each with the bits of its sections that lookups above this node already used."""
    if len(filed) <= _SMALL:
        return LinearScan([rule for rule, _ in filed])
    counts: Counter[_Lookup] = Counter()
    sections_by_rule = [_unused_sections(rule, used, build.pause) for rule, used in filed]
    for sections in sections_by_rule:
        build.pause()
        for _, keys in sections:
            counts.update(keys)
    dimensions: dict[object, _Filed] = {}
    rest: list[Rule] = []
    for (rule, used), sections in zip(filed, sections_by_rule, strict=True):
        build.pause()
        # A lookup that all rules here share splits nothing. A rule without any other goes into the tree of clauses.
        splitting = [section for section in sections if all(counts[key] < len(filed) for key in section[1])]
        if not splitting:
            rest.append(rule)
            continue
        best = min(splitting, key=lambda section: sum(counts[key] for key in section[1]))
        for dimension, key in set(best[1]):
            dimensions.setdefault(dimension, {}).setdefault(key, []).append((rule, used | best[0]))
    lowest = min(rule.id for rule, _ in filed)
    tree = _clause_tree(rest, build) if rest else None
    if not dimensions and tree is not None:
        return tree
    lookups = [_lookup(dimension, filed_by_key, build) for dimension, filed_by_key in dimensions.items()]
    return BranchNode(_combine(lookups), tree, lowest)


def _combine(lookups: list[ValueLookup | CidrLookup]) -> tuple[ValueLookup | CidrLookup | KeyedLookup, ...]:
    """Combine lookups on many headers or claims into one that asks only for names that the request has."""
    headers: dict[str, list[ValueLookup]] = {}
    claims: dict[str, list[ValueLookup]] = {}
    for lookup in lookups:
        if isinstance(lookup, ValueLookup) and _plain_header(lookup.dimension):
            headers.setdefault(lookup.dimension.folded, []).append(lookup)
        if isinstance(lookup.dimension, ClaimDimension) and isinstance(lookup, ValueLookup):
            claims.setdefault(lookup.dimension.path[0], []).append(lookup)
    combined: list[ValueLookup | CidrLookup | KeyedLookup] = []
    if len(headers) > _SMALL:
        combined.append(KeyedLookup(Inputs.folded_header_names, headers))
        lookups = [lookup for lookup in lookups if not _plain_header(lookup.dimension)]
    if len(claims) > _SMALL:
        combined.append(KeyedLookup(_claim_names, claims))
        lookups = [lookup for lookup in lookups if not isinstance(lookup.dimension, ClaimDimension)]
    return (*combined, *lookups)


def _plain_header(dimension: object) -> TypeGuard[HeaderDimension]:
    return isinstance(dimension, HeaderDimension) and dimension.header not in PSEUDO_HEADERS


def _claim_names(inputs: Inputs) -> Iterable[str]:
    return inputs.claims or ()


def _lookup(dimension: object, filed_by_key: _Filed, build: _Build) -> ValueLookup | CidrLookup:
    nodes = {key: _build(filed, build) for key, filed in filed_by_key.items()}
    if isinstance(dimension, AddressDimension):
        return _cidr_lookup(dimension, nodes)
    lookup = ValueLookup(dimension)  # type: ignore[arg-type]
    prefixes: dict[int, dict[str, IndexNode]] = {}
    suffixes: dict[int, dict[str, IndexNode]] = {}
    for key, node in nodes.items():
        build.pause()
        match key.form:
            case "exact":
                lookup.exact[key.text] = node
            case "prefix":
                prefixes.setdefault(len(key.text), {})[key.text] = node
            case "suffix":
                suffixes.setdefault(len(key.text), {})[key.text] = node
            case "namespace":
                lookup.namespaces[key.text] = node
            case "account":
                lookup.accounts[key.text] = node
            case "template":
                if lookup.templates is None:
                    lookup.templates = TemplateTrie()
                lookup.templates.add(key.text, node)
            case _:
                raise AssertionError(key.form)
    lookup.prefixes = tuple(sorted(prefixes.items()))
    lookup.suffixes = tuple(sorted(suffixes.items()))
    lookup.all_nodes = tuple(nodes.values())
    return lookup


def _cidr_lookup(dimension: AddressDimension, nodes: dict[IndexKey, IndexNode]) -> CidrLookup:
    tables: dict[tuple[int, int], dict[int, IndexNode]] = {}
    for key, node in nodes.items():
        version, _, length = key.form.removeprefix("cidr").partition("/")
        bits = 32 if version == "4" else 128
        tables.setdefault((int(version), bits - int(length)), {})[int(key.text)] = node
    lookup = CidrLookup(dimension)
    lookup.tables = tuple((version, cut, table) for (version, cut), table in sorted(tables.items()))
    lookup.all_nodes = tuple(nodes.values())
    return lookup


def _clause_tree(rules: list[Rule], build: _Build) -> IndexNode:
    """The tree of common clauses over `rules`."""
    if len(rules) <= _SMALL:
        return LinearScan(rules)
    split = [_rule_atoms(rule, build) for rule in rules]
    counts: Counter[int] = Counter(id(atom) for atoms in split for atom in atoms)
    root = SharedClauseNode(None)
    below: dict[tuple[int, int], SharedClauseNode] = {}
    for rule, atoms in zip(rules, split, strict=True):
        build.pause()
        node = root
        node.lowest = min(node.lowest, rule.id)
        # Only a clause that another rule shares is worth a node; the rule itself evaluates the rest.
        for atom in sorted((a for a in atoms if counts[id(a)] > 1), key=lambda a: (-counts[id(a)], a.cost, a.label)):
            child = below.get((id(node), id(atom)))
            if child is None:
                child = below[id(node), id(atom)] = SharedClauseNode(atom)
                node.children.append(child)
            child.lowest = min(child.lowest, rule.id)
            node = child
        node.rules.append(rule)
    return root


def _rule_atoms(rule: Rule, build: _Build) -> list[Clause]:
    build.pause()
    return [atom for clause in rule.clauses for atom in _atoms(clause, build.shared)]


def _atoms(clause: Clause, shared: dict[tuple[object, ...], Clause]) -> list[Clause]:
    """Split a negation of several values into negations of one value, which other rules may share."""
    if not (clause.negated and isinstance(clause, TextClause) and 1 < len(clause.matchers) <= _MAX_SPLIT_VALUES):
        return [clause]
    if isinstance(clause.dimension, HeaderDimension):  # a single matcher may not match all of several values
        return [clause]
    atoms: list[Clause] = []
    for matcher in clause.matchers:
        key = (clause.dimension, matcher)
        atom = shared.get(key)
        if atom is None:
            atom = shared[key] = TextClause(clause.dimension, (matcher,), True, clause.label, clause.cost)
        atoms.append(atom)
    return atoms
