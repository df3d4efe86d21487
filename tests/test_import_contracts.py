"""The import contracts of pyproject.toml, held to what they are for: forbidden imports are put in, and each must be caught.

The table below says again which way imports may go, so that a contract that is weakened fails here.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grimp
import pytest
from importlinter.api import read_configuration
from importlinter.contracts import forbidden, layers, protected

from tests.support.import_contracts import AllowedExternals, NoCircles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grimp import ImportGraph
    from importlinter import Contract

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "zta_authz"

ROWS = (
    ("__main__",),
    ("cli",),
    ("administrator",),
    ("service",),
    ("settings",),
    ("servers",),
    ("ext_authz", "facts", "following", "keys", "policy_sources", "audit", "telemetry", "admin"),
    ("authorizer", "grpc_h2", "otlp", "sockets", "memory_keys", "signals", "failure_log"),
    ("ports",),
    ("pdp",),
    ("trust",),
    ("access", "security_events", "minting"),
    ("authn", "policy"),
    ("model",),
    ("bounded_cache", "errors"),
    ("_proto",),
)
"""From the top down. A room imports from rows below its own only, and nothing from its neighbours."""
ROOMS = tuple(room for row in ROWS for room in row)
INNER: dict[str, tuple[tuple[str, ...], ...]] = {
    "service": (
        ("service.workers",),
        ("service.app",),
        (
            "service.embedded", "service.preflight", "service.readiness", "service.reloading", "service.server_factory",
            "service.observability", "service.warmup",
        ),
        ("service.fact_data", "service.following", "service.minting"),
        ("service.loading",),
    ),
    "servers": (
        ("servers.fast", "servers.grpcio"),
        ("servers.group", "servers.health", "servers.methods"),
        ("servers.descriptors", "servers.svid_tls", "servers.tls", "servers.own_certificate"),
        ("servers.listeners", "servers.allowed_callers"),
    ),
}  # fmt: skip
"""The same for rooms that have rows of their own: their names are the room's, a dot, and the module's or package's."""
TABLES = (ROWS, *INNER.values())
ALL_ROOMS = tuple(room for rows in TABLES for row in rows for room in row)

CORE = ("bounded_cache", "errors", "model", "authn", "policy", "security_events", "minting", "trust", "pdp", "grpc_h2")
INPUT_AND_OUTPUT = (
    "aiohttp", "asyncio", "atexit", "concurrent", "ctypes", "fcntl", "ftplib", "gc", "glob", "google", "grpc", "http",
    "importlib", "inspect", "io", "logging", "mmap", "multiprocessing", "opentelemetry", "os", "pathlib", "pickle", "platform",
    "prometheus_client", "pydantic", "queue", "random", "requests", "resource", "rich", "sched", "secrets", "select",
    "selectors", "shutil", "signal", "smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "sys", "tempfile",
    "threading", "time", "urllib", "uuid", "uvloop", "yarl",
)  # fmt: skip
BELOW_NO_CARRIER = (
    "ports",
    "pdp",
    "trust",
    "security_events",
    "minting",
    "authn",
    "policy",
    "model",
    "errors",
    "_proto",
)
"""What carries bytes must know nothing of authorization, though these stand below it."""
CARRIERS = ("grpc_h2", "otlp", "sockets", "memory_keys", "signals", "failure_log")
MAY_READ_PROTOBUF = ("ext_authz", "admin", "administrator", "following", "service.warmup")

TYPES: dict[str, type[Contract]] = {
    "layers": layers.LayersContract,
    "forbidden": forbidden.ForbiddenContract,
    "protected": protected.ProtectedContract,
    "allowed_externals": AllowedExternals,
    "no_circles": NoCircles,
}


@pytest.fixture(scope="module")
def graph() -> ImportGraph:
    built = grimp.build_graph(PACKAGE, include_external_packages=True, cache_dir=None)
    for name in INPUT_AND_OUTPUT:
        if name not in built.modules:
            built.add_module(name, is_squashed=True)
    return built


@pytest.fixture(scope="module")
def contracts() -> list[Contract]:
    read = read_configuration(str(ROOT / "pyproject.toml"))
    return [
        TYPES[options["type"]](options["name"], read["session_options"], options)
        for options in read["contracts_options"]
    ]


def of_type(contracts: list[Contract], kind: type[Contract]) -> list[Contract]:
    return [contract for contract in contracts if isinstance(contract, kind)]


def forbidden_to(importer: str) -> Iterator[str]:
    """One room of each row above the importer's, another one for each importer, and all of its neighbours."""
    number = ALL_ROOMS.index(importer)
    for row in next(rows for rows in TABLES if any(importer in row for row in rows)):
        if importer in row:
            yield from (room for room in row if room != importer)
            return
        yield row[number % len(row)]


def deepest(graph: ImportGraph, room: str) -> str:
    """A module of the room that stands as deep as any."""
    top = f"{PACKAGE}.{room}"
    return max(sorted({top, *graph.find_descendants(top)}), key=lambda name: name.count("."))


def not_kept(graph: ImportGraph, contracts: list[Contract]) -> list[str]:
    """The names of the contracts that `graph` breaks. Each gets a copy, because some take out what they ignore."""
    return [contract.name for contract in contracts if not contract.check(copy.deepcopy(graph), verbose=False).kept]


def broken(graph: ImportGraph, contracts: list[Contract], importer: str, imported: str) -> list[str]:
    """The names of the contracts that an import from `importer` to `imported` breaks; it is taken out again."""
    assert not graph.direct_import_exists(importer=importer, imported=imported)
    graph.add_import(importer=importer, imported=imported, line_number=1, line_contents="import")
    try:
        return not_kept(graph, contracts)
    finally:
        graph.remove_import(importer=importer, imported=imported)


def test_the_project_keeps_its_contracts(graph: ImportGraph, contracts: list[Contract]) -> None:
    assert not_kept(graph, contracts) == []


@pytest.mark.parametrize("room", ["", *INNER])
def test_the_table_has_every_module_and_package(room: str) -> None:
    folder = ROOT / PACKAGE / room
    inside = {path.name for path in folder.iterdir() if (path / "__init__.py").exists()}
    inside |= {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    listed = [name.removeprefix(f"{room}.") for row in (INNER[room] if room else ROWS) for name in row]
    assert sorted(inside) == sorted(listed)


@pytest.mark.parametrize(
    "importer", [room for rows in TABLES for row in rows for room in row if room not in rows[0][:1]]
)
def test_no_room_may_import_what_stands_above_or_beside_it(
    importer: str, graph: ImportGraph, contracts: list[Contract]
) -> None:
    source = deepest(graph, importer)
    rows = of_type(contracts, layers.LayersContract)
    assert [room for room in forbidden_to(importer) if not broken(graph, rows, source, deepest(graph, room))] == []


@pytest.mark.parametrize("room", CORE)
def test_the_core_may_import_nothing_that_reads_or_writes(
    room: str, graph: ImportGraph, contracts: list[Contract]
) -> None:
    source = deepest(graph, room)
    externals = of_type(contracts, AllowedExternals)
    assert [name for name in INPUT_AND_OUTPUT if not broken(graph, externals, source, name)] == []


@pytest.mark.parametrize("room", ["authorizer", "ports"])
@pytest.mark.parametrize("name", ["asyncio", "aiohttp", "grpc", "google", "io", "os", "socket", "threading", "pathlib"])
def test_the_data_path_may_not_either(room: str, name: str, graph: ImportGraph, contracts: list[Contract]) -> None:
    assert broken(graph, of_type(contracts, AllowedExternals), f"{PACKAGE}.{room}", name)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_what_carries_bytes_may_import_nothing_of_authorization(
    carrier: str, graph: ImportGraph, contracts: list[Contract]
) -> None:
    source = deepest(graph, carrier)
    carriers = of_type(contracts, forbidden.ForbiddenContract)
    assert [room for room in BELOW_NO_CARRIER if not broken(graph, carriers, source, deepest(graph, room))] == []


@pytest.mark.parametrize("room", [room for room in ROOMS[:-1] if room not in MAY_READ_PROTOBUF])
def test_generated_protobuf_types_stop_at_the_wire(room: str, graph: ImportGraph, contracts: list[Contract]) -> None:
    wire = of_type(contracts, protected.ProtectedContract)
    assert broken(graph, wire, f"{PACKAGE}.{room}", f"{PACKAGE}._proto.ext_authz_pb2")


@pytest.mark.parametrize(
    "room", [room for room in ROOMS if len(list((ROOT / PACKAGE / room).rglob("*.py"))) > 2 and room != "_proto"]
)
def test_a_circle_of_two_modules_in_any_room_is_caught(
    room: str, graph: ImportGraph, contracts: list[Contract]
) -> None:
    top = f"{PACKAGE}.{room}"
    inside = {top, *graph.find_descendants(top)}
    pairs = [
        (one, other)
        for one in sorted(inside)
        for other in sorted(graph.find_modules_directly_imported_by(one) & inside)
    ]
    if not pairs:
        pytest.skip("no module of this room imports another of it")
    importer, imported = pairs[-1]
    assert broken(graph, of_type(contracts, NoCircles), imported, importer)


def test_a_new_module_without_a_layer_is_caught(graph: ImportGraph, contracts: list[Contract]) -> None:
    graph.add_module(f"{PACKAGE}.elsewhere")
    try:
        with pytest.raises(Exception, match="elsewhere"):
            assert contracts[0].check(graph, verbose=False).kept, "elsewhere"
    finally:
        graph.remove_module(f"{PACKAGE}.elsewhere")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("authn/encoding.py", "if TYPE_CHECKING:\n    from zta_authz.settings.model import Settings\n"),
        ("pdp/decide.py", "def later() -> None:\n    import io\n"),
        ("model/pace.py", "if TYPE_CHECKING:\n    import aiohttp\n"),
    ],
    ids=["for types only", "inside a function", "from outside, for types only"],
)
def test_lint_imports_sees_an_import_wherever_it_stands(module: str, line: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "tests" / "support", tmp_path / "tests" / "support", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "tests" / "__init__.py", tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / PACKAGE / module).open("a", encoding="utf-8") as file:
        file.write("\n\nfrom typing import TYPE_CHECKING\n\n" + line)
    program = "import sys; sys.path.insert(0, ''); from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert " BROKEN" in ran.stdout, ran.stdout + ran.stderr
