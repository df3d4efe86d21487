"""Two kinds of import contract that import-linter lacks: a list of what may be imported, and no circles of modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from importlinter import Contract, ContractCheck, fields, output

if TYPE_CHECKING:
    from grimp import ImportGraph

ROOT = "zta_authz"


class AllowedExternals(Contract):
    """`source_modules` and all below them import nothing from outside the project but `allowed_modules`."""

    type_name = "allowed_externals"
    source_modules = fields.SetField(subfield=fields.StringField())
    allowed_modules = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Compare every import of the source modules with the list."""
        sources = {module for root in self.source_modules for module in (root, *graph.find_descendants(root))}  # type: ignore[attr-defined]
        wrong = sorted(
            (source, imported)
            for source in sources
            for imported in graph.find_modules_directly_imported_by(source)
            if not imported.startswith(ROOT) and imported not in self.allowed_modules  # type: ignore[operator]
        )
        return ContractCheck(kept=not wrong, metadata={"wrong": wrong})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print each import that is not on the list."""
        for source, imported in check.metadata["wrong"]:
            output.print_error(f"{source} imports {imported}, which the contract does not allow")


class NoCircles(Contract):
    """No module of `root` imports itself through others; imports for types count, too."""

    type_name = "no_circles"
    root = fields.StringField()

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Look for a way back for each import."""
        circles = [
            chain
            for module in sorted({str(self.root), *graph.find_descendants(str(self.root))})
            for imported in sorted(graph.find_modules_directly_imported_by(module))
            if imported.startswith(ROOT) and (chain := graph.find_shortest_chain(importer=imported, imported=module))
        ]
        return ContractCheck(kept=not circles, metadata={"circles": circles})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print the shortest circles: whoever breaks them up has often broken up the others."""
        for chain in sorted(check.metadata["circles"], key=len)[:4]:
            output.print_error(" -> ".join((chain[-1], *chain)))
