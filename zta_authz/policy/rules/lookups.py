"""The lookups of an index, and the nodes that are made of them. For `first`, see `IndexNode` in `rule`."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from zta_authz.policy.rules.rule import NO_RULE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.dimensions import AddressDimension, Dimension
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.path_templates import TemplateTrie
    from zta_authz.policy.rules.rule import IndexNode, Rule


class SharedClauseNode:
    """Rules that share a clause, which is evaluated once for all of them. The root has no clause."""

    __slots__ = ("children", "clause", "lowest", "rules")

    def __init__(self, clause: Clause | None) -> None:
        self.clause = clause
        self.children: list[SharedClauseNode] = []
        self.rules: list[Rule] = []
        self.lowest = NO_RULE

    def first(self, inputs: Inputs, deny: bool, bound: int) -> int:
        """See `IndexNode`."""
        if self.clause is not None and not self.clause.holds(inputs, deny):
            return bound
        for rule in self.rules:
            if rule.id >= bound:
                break
            if rule.holds(inputs, deny):
                bound = rule.id
                break
        for node in self.children:  # in order of their lowest rule
            if node.lowest >= bound:
                break
            bound = node.first(inputs, deny, bound)
        return bound


class ValueLookup:
    """The lookups of one dimension of texts. The values are index nodes."""

    __slots__ = ("accounts", "all_nodes", "dimension", "exact", "namespaces", "prefixes", "suffixes", "templates")

    def __init__(self, dimension: Dimension) -> None:
        self.dimension = dimension
        self.exact: dict[str, IndexNode] = {}
        self.prefixes: tuple[tuple[int, dict[str, IndexNode]], ...] = ()
        self.suffixes: tuple[tuple[int, dict[str, IndexNode]], ...] = ()
        self.namespaces: dict[str, IndexNode] = {}
        self.accounts: dict[str, IndexNode] = {}
        self.templates: TemplateTrie[IndexNode] | None = None
        self.all_nodes: tuple[IndexNode, ...] = ()

    def first(self, inputs: Inputs, deny: bool, bound: int) -> int:
        """See `IndexNode`."""
        values = self.dimension.values(inputs, deny)
        if values is None:  # unknown: a DENY may match any of them, an ALLOW none
            if deny:
                for any_node in self.all_nodes:
                    bound = any_node.first(inputs, deny, bound)
            return bound
        for value in values if len(values) < 2 else dict.fromkeys(values):
            node = self.exact.get(value)
            if node is not None and node.lowest < bound:
                bound = node.first(inputs, deny, bound)
            if self.prefixes or self.suffixes:
                bound = self._affixes(value, inputs, deny, bound)
            if self.templates is not None:
                for template_node in self.templates.find(value):
                    bound = template_node.first(inputs, deny, bound)
            if self.namespaces or self.accounts:
                bound = self._segments(value, inputs, deny, bound)
        return bound

    def _affixes(self, value: str, inputs: Inputs, deny: bool, bound: int) -> int:
        length = len(value)
        for size, nodes in self.prefixes:
            if size > length:
                break
            node = nodes.get(value[:size])
            if node is not None and node.lowest < bound:
                bound = node.first(inputs, deny, bound)
        for size, nodes in self.suffixes:
            if size > length:
                break
            node = nodes.get(value[length - size :])
            if node is not None and node.lowest < bound:
                bound = node.first(inputs, deny, bound)
        return bound

    def _segments(self, value: str, inputs: Inputs, deny: bool, bound: int) -> int:
        # Each pair only once: a name may repeat `/ns/a` hundreds of times.
        for marker, segment in dict.fromkeys(pairwise(value.split("/"))):
            node: IndexNode | None = None
            if marker == "ns":
                node = self.namespaces.get(segment)
            elif marker == "sa":
                node = self.accounts.get(segment)
            if node is not None and node.lowest < bound:
                bound = node.first(inputs, deny, bound)
        return bound


class CidrLookup:
    """The lookups of one address: a dictionary per IP version and prefix length."""

    __slots__ = ("all_nodes", "dimension", "tables")

    def __init__(self, dimension: AddressDimension) -> None:
        self.dimension = dimension
        self.tables: tuple[tuple[int, int, dict[int, IndexNode]], ...] = ()
        self.all_nodes: tuple[IndexNode, ...] = ()

    def first(self, inputs: Inputs, deny: bool, bound: int) -> int:
        """See `IndexNode`."""
        addresses = self.dimension.values(inputs, deny)
        if addresses is None:
            if deny:
                for any_node in self.all_nodes:
                    bound = any_node.first(inputs, deny, bound)
            return bound
        for address in addresses:
            number = int(address)
            for version, cut, table in self.tables:
                if version == address.version:
                    node = table.get(number >> cut << cut)
                    if node is not None and node.lowest < bound:
                        bound = node.first(inputs, deny, bound)
        return bound


class KeyedLookup:
    """The lookups of many headers or claims, by name. Only names that the request has are looked up."""

    __slots__ = ("entries", "names")

    def __init__(self, names: Callable[[Inputs], Iterable[str]], entries: dict[str, list[ValueLookup]]) -> None:
        self.names = names
        self.entries = entries

    def first(self, inputs: Inputs, deny: bool, bound: int) -> int:
        """See `IndexNode`."""
        for name in self.names(inputs):
            for lookup in self.entries.get(name, ()):
                bound = lookup.first(inputs, deny, bound)
        return bound


class BranchNode:
    """Rules that lookups find, and a tree of the rest."""

    __slots__ = ("entries", "lowest", "rest")

    def __init__(
        self, entries: tuple[ValueLookup | CidrLookup | KeyedLookup, ...], rest: IndexNode | None, lowest: int
    ) -> None:
        self.entries = entries
        self.rest = rest
        self.lowest = lowest

    def first(self, inputs: Inputs, deny: bool, bound: int) -> int:
        """See `IndexNode`."""
        for lookup in self.entries:
            bound = lookup.first(inputs, deny, bound)
        rest = self.rest
        if rest is not None and rest.lowest < bound:
            bound = rest.first(inputs, deny, bound)
        return bound
