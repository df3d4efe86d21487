"""Building the index that finds the lowest rule that holds without trying them all.

Each rule is filed under the lookups of its most selective part: a clause, or a group in which every alternative has
one. Rules that share a lookup are filed again among themselves by another part, so that a lookup leads to few rules
however they repeat. Rules with no lookup left (negations, `*`, patterns) go into a tree that shares their clauses, most
common first: a clause that fails rules out everything below it, and is tried once.

Lookups only narrow: every rule found is then evaluated whole.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeGuard

from zta_authz.model.pace import no_pause
from zta_authz.policy.rules.clauses import TextClause
from zta_authz.policy.rules.dimensions import AddressDimension, ClaimDimension, HeaderDimension
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.lookups import (
    BranchNode,
    CidrLookup,
    IndexNode,
    KeyedLookup,
    LinearScan,
    SharedClauseNode,
    ValueLookup,
)
from zta_authz.policy.rules.path_templates import TemplateTrie
from zta_authz.policy.rules.spellings import PSEUDO_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zta_authz.model.pace import Pause
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.matchers import IndexKey
    from zta_authz.policy.rules.rule import Rule

    _Lookup = tuple[object, IndexKey]
    _Filed = dict[IndexKey, list[tuple[Rule, int]]]

_SMALL: Final = 8
"""Up to this many rules are tried one after the other: faster than any lookup."""
_MAX_SPLIT_VALUES: Final = 8


@dataclass(frozen=True, slots=True)
class _Work:
    """What building one index shares: clauses of one value each, and where to pause."""

    shared: dict[tuple[object, ...], Clause]
    pause: Pause


def build_index(rules: list[Rule], pause: Pause = no_pause) -> IndexNode | None:
    """The index over `rules`, whose ids are set; None where there are none."""
    return _build([(rule, 0) for rule in rules], _Work({}, pause)) if rules else None


def _sections(rule: Rule) -> Iterator[tuple[int, list[_Lookup]]]:
    """Each part of a rule that lookups can find, with a bit that names it."""
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
    found: list[_Lookup] = []
    for alternative in group:
        for clause in alternative:
            keys = clause.index_keys()
            if keys is not None:
                found += [(keys[0], key) for key in keys[1]]
                break
        else:
            return None
    return found


def _build(filed: list[tuple[Rule, int]], work: _Work) -> IndexNode:
    """The part for `filed`: rules, each with the bits of its sections that the way here has used up."""
    if len(filed) <= _SMALL:
        return LinearScan([rule for rule, _ in filed])
    counts: Counter[_Lookup] = Counter()
    sections = [_unused_sections(rule, used, work.pause) for rule, used in filed]
    for parts in sections:
        work.pause()
        for _, keys in parts:
            counts.update(keys)
    dimensions: dict[object, _Filed] = {}
    rest: list[Rule] = []
    for (rule, used), parts in zip(filed, sections, strict=True):
        work.pause()
        # A lookup that every rule here shares splits nothing; a rule that has no other stays in the tree of clauses.
        splitting = [part for part in parts if all(counts[key] < len(filed) for key in part[1])]
        if not splitting:
            rest.append(rule)
            continue
        best = min(splitting, key=lambda part: sum(counts[key] for key in part[1]))
        for dimension, key in set(best[1]):
            dimensions.setdefault(dimension, {}).setdefault(key, []).append((rule, used | best[0]))
    lowest = min(rule.id for rule, _ in filed)
    tree = _share(rest, work) if rest else None
    if not dimensions and tree is not None:
        return tree
    entries = [_entries(dimension, found, work) for dimension, found in dimensions.items()]
    return BranchNode(_gather(entries), tree, lowest)


def _gather(entries: list[ValueLookup | CidrLookup]) -> tuple[ValueLookup | CidrLookup | KeyedLookup, ...]:
    """Lookups on many headers or claims as one, which asks only for those the request has."""
    headers: dict[str, list[ValueLookup]] = {}
    claims: dict[str, list[ValueLookup]] = {}
    for entry in entries:
        if isinstance(entry, ValueLookup) and _plain_header(entry.dimension):
            headers.setdefault(entry.dimension.folded, []).append(entry)
        if isinstance(entry.dimension, ClaimDimension) and isinstance(entry, ValueLookup):
            claims.setdefault(entry.dimension.path[0], []).append(entry)
    gathered: list[ValueLookup | CidrLookup | KeyedLookup] = []
    if len(headers) > _SMALL:
        gathered.append(KeyedLookup(Inputs.folded_header_names, headers))
        entries = [e for e in entries if not _plain_header(e.dimension)]
    if len(claims) > _SMALL:
        gathered.append(KeyedLookup(_claim_names, claims))
        entries = [e for e in entries if not isinstance(e.dimension, ClaimDimension)]
    return (*gathered, *entries)


def _plain_header(dimension: object) -> TypeGuard[HeaderDimension]:
    return isinstance(dimension, HeaderDimension) and dimension.header not in PSEUDO_HEADERS


def _claim_names(inputs: Inputs) -> Iterable[str]:
    return inputs.claims or ()


def _entries(dimension: object, found: _Filed, work: _Work) -> ValueLookup | CidrLookup:
    parts = {key: _build(filed, work) for key, filed in found.items()}
    if isinstance(dimension, AddressDimension):
        return _blocks(dimension, parts)
    entries = ValueLookup(dimension)  # type: ignore[arg-type]
    prefixes: dict[int, dict[str, IndexNode]] = {}
    suffixes: dict[int, dict[str, IndexNode]] = {}
    for key, part in parts.items():
        work.pause()
        match key.form:
            case "exact":
                entries.exact[key.text] = part
            case "prefix":
                prefixes.setdefault(len(key.text), {})[key.text] = part
            case "suffix":
                suffixes.setdefault(len(key.text), {})[key.text] = part
            case "namespace":
                entries.namespaces[key.text] = part
            case "account":
                entries.accounts[key.text] = part
            case "template":
                if entries.templates is None:
                    entries.templates = TemplateTrie()
                entries.templates.add(key.text, part)
            case _:
                raise AssertionError(key.form)
    entries.prefixes = tuple(sorted(prefixes.items()))
    entries.suffixes = tuple(sorted(suffixes.items()))
    entries.every = tuple(parts.values())
    return entries


def _blocks(dimension: AddressDimension, parts: dict[IndexKey, IndexNode]) -> CidrLookup:
    tables: dict[tuple[int, int], dict[int, IndexNode]] = {}
    for key, part in parts.items():
        version, _, length = key.form.removeprefix("cidr").partition("/")
        bits = 32 if version == "4" else 128
        tables.setdefault((int(version), bits - int(length)), {})[int(key.text)] = part
    blocks = CidrLookup(dimension)
    blocks.tables = tuple((version, cut, table) for (version, cut), table in sorted(tables.items()))
    blocks.every = tuple(parts.values())
    return blocks


def _share(rules: list[Rule], work: _Work) -> IndexNode:
    """The tree of common clauses over `rules`."""
    if len(rules) <= _SMALL:
        return LinearScan(rules)
    split = [_rule_atoms(rule, work) for rule in rules]
    counts: Counter[int] = Counter(id(atom) for atoms in split for atom in atoms)
    root = SharedClauseNode(None)
    below: dict[tuple[int, int], SharedClauseNode] = {}
    for rule, atoms in zip(rules, split, strict=True):
        work.pause()
        node = root
        node.lowest = min(node.lowest, rule.id)
        # Only what another rule has too is worth a node; the rule itself tries the rest.
        for atom in sorted((a for a in atoms if counts[id(a)] > 1), key=lambda a: (-counts[id(a)], a.cost, a.label)):
            child = below.get((id(node), id(atom)))
            if child is None:
                child = below[id(node), id(atom)] = SharedClauseNode(atom)
                node.below.append(child)
            child.lowest = min(child.lowest, rule.id)
            node = child
        node.rules.append(rule)
    return root


def _rule_atoms(rule: Rule, work: _Work) -> list[Clause]:
    work.pause()
    return [atom for clause in rule.clauses for atom in _atoms(clause, work.shared)]


def _atoms(clause: Clause, shared: dict[tuple[object, ...], Clause]) -> list[Clause]:
    """A negation of several values as negations of one each, which other rules may share; else the clause."""
    if not (clause.negated and isinstance(clause, TextClause) and 1 < len(clause.matchers) <= _MAX_SPLIT_VALUES):
        return [clause]
    if isinstance(clause.dimension, HeaderDimension):  # each of several values may be met by another matcher
        return [clause]
    atoms: list[Clause] = []
    for matcher in clause.matchers:
        key = (clause.dimension, matcher)
        atom = shared.get(key)
        if atom is None:
            atom = shared[key] = TextClause(clause.dimension, (matcher,), True, clause.label, clause.cost)
        atoms.append(atom)
    return atoms
