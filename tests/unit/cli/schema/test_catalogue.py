"""The schemas say what the readers say: the same fields, and the same documents accepted."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.docs.checks import with_certificate
from tests.docs.fences import ROOT, fences
from tests.docs.yaml_files import files
from tests.support.policies import faults
from tests.unit.cli.schema.documents import complete_documents, faults_of
from zta_authz.cli.policy_tests import KIND as POLICY_TEST, _SuiteReader
from zta_authz.cli.request_files import read_request
from zta_authz.cli.schema.catalogue import schema_for
from zta_authz.cli.schema.names import ALL, NAMES, REQUEST
from zta_authz.policy.documents.reader import KINDS, DocumentReader
from zta_authz.policy.documents.spec import ZTA_VERSION
from zta_authz.policy.yaml.fields import Reader
from zta_authz.policy.yaml.nodes import Mapping, Sequence, read_documents
from zta_authz.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from zta_authz.errors import Fault
    from zta_authz.policy.yaml.nodes import Node

SINGLE = [name for name in NAMES if name != ALL]
OF_SERVICE = [name for name in SINGLE if name not in (POLICY_TEST, REQUEST)]


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(schema_for(name))


def errors(name: str, document: Any) -> list[str]:
    found = validator(name).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the policies that the tests' PolicyTest documents name."""
    path = tmp_path_factory.mktemp("suite")
    (path / "policies").mkdir()
    head = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: a, namespace: shop}\n"
    (path / "policies" / "a.yaml").write_text(f"{head}spec: {{}}\n", encoding="utf-8")
    return path


def test_every_kind_that_the_service_reads_has_a_schema() -> None:
    assert {kind for version, kind in KINDS if version == ZTA_VERSION} == set(OF_SERVICE)


@pytest.mark.parametrize("name", NAMES)
def test_each_schema_is_a_valid_schema_whose_references_resolve(name: str) -> None:
    schema = schema_for(name)
    Draft202012Validator.check_schema(schema)
    named = set(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(schema)))
    assert named == set(schema.get("$defs", ()))


@pytest.mark.parametrize("name", SINGLE)
def test_documents_with_every_field_are_accepted_by_the_service_and_by_both_schemas(name: str, folder: Path) -> None:
    for document in complete_documents(name):
        assert faults_of(name, document, folder) == []
        assert errors(name, document) == []
        if name != REQUEST:
            assert errors(ALL, document) == []


class _Fields(Reader):
    """A reader that records the fields it knows of each mapping."""

    known: dict[int, tuple[Node, set[str]]]

    def mapping(self, node: Node, name: str, known: Collection[str]) -> Mapping | None:
        self.known[id(node)] = (node, self.known.get(id(node), (node, set()))[1] | set(known))
        return super().mapping(node, name, known)


def _read(name: str, document: Any, folder: Path) -> tuple[Node, dict[int, tuple[Node, set[str]]]]:
    """Read the document as the service does. Returns its root, and the known fields of each mapping."""
    found: list[Fault] = []
    (node,) = read_documents("a.yaml", json.dumps(document), found)
    reader = _Fields("a.yaml", found)
    reader.known = {}
    if name == REQUEST:
        read_request(reader, node, folder)
    elif name == POLICY_TEST:
        _SuiteReader(reader, folder).read(node)
    else:
        DocumentReader("default", found, [], lambda _: None)._read_document(reader, node, "", 0)
    assert found == []
    return node, reader.known


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    return root["$defs"][name] if name else schema


def _pairs(node: Node, schema: dict[str, Any], root: dict[str, Any]) -> Iterator[tuple[Mapping, dict[str, Any]]]:
    """Each mapping below `node` with its schema."""
    schema = _resolved(schema, root)
    if "anyOf" in schema and "properties" not in schema:
        wanted = "properties" if isinstance(node, Mapping) else "items"
        schema = next((one for one in schema["anyOf"] if wanted in one), schema)
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _pairs(item, schema.get("items", {}), root)
    elif isinstance(node, Mapping):
        yield node, schema
        for name, (_, value) in node.entries.items():
            rest = schema.get("additionalProperties")
            below = schema.get("properties", {}).get(name, rest if isinstance(rest, dict) else {})
            yield from _pairs(value, below, root)


def _is_closed(schema: dict[str, Any]) -> bool:
    return schema.get("additionalProperties") is False


@pytest.mark.parametrize("name", SINGLE)
def test_each_mapping_has_exactly_the_fields_that_its_reader_knows(name: str, folder: Path) -> None:
    root = schema_for(name)
    compared = 0
    for document in complete_documents(name):
        node, known = _read(name, document, folder)
        options = node.get("options") if isinstance(node, Mapping) else None
        for mapping, schema in _pairs(node, root, root):
            of_settings = mapping.line > 0 and options is not None and _is_below(mapping, options)
            if _is_closed(schema) and not of_settings:
                assert set(schema["properties"]) == known[id(mapping)][1], schema["description"]
                compared += 1
            elif id(mapping) in known and not of_settings:  # a mapping whose names are the writer's choice
                assert known[id(mapping)][1] <= set(mapping.entries), schema
    assert compared > 0


def _is_below(node: Node, above: Node) -> bool:
    """Whether pydantic reads the mapping: it is in `options`, and not `options` itself."""
    if isinstance(above, Mapping):
        return any(value is node or _is_below(node, value) for _, value in above.entries.values())
    return isinstance(above, Sequence) and any(item is node or _is_below(node, item) for item in above.items)


def _closed(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if _is_closed(schema) and "properties" in schema:
            yield schema
        for value in schema.values():
            yield from _closed(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _closed(item)


def _own(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("$defs", "$schema", "title")}


def _own_schemas(name: str) -> Iterator[dict[str, Any]]:
    """The schemas of all mappings, without those that pydantic makes of the settings."""
    root = schema_for(name)
    of_settings = Settings.model_json_schema()["$defs"] if name == POLICY_TEST else {}
    yield from _closed(_own(root))
    yield from _closed([part for key, part in root.get("$defs", {}).items() if key not in of_settings])


def test_the_documents_of_these_tests_use_every_field_of_every_schema(folder: Path) -> None:
    used: dict[str, set[str]] = {}
    for name in SINGLE:
        root = schema_for(name)
        for document in complete_documents(name):
            node, _ = _read(name, document, folder)
            for mapping, schema in _pairs(node, root, root):
                used.setdefault(json.dumps(_own(schema), sort_keys=True), set()).update(mapping.entries)
    for schema in (schema for name in SINGLE for schema in _own_schemas(name)):
        missing = set(schema["properties"]) - used.get(json.dumps(schema, sort_keys=True), set())
        assert missing == set(), schema.get("description")


@pytest.mark.parametrize("name", SINGLE)
def test_every_field_is_described_in_a_sentence(name: str) -> None:
    root = schema_for(name)
    for schema in _own_schemas(name):
        for field, below in schema["properties"].items():
            assert _resolved(below, root).get("description", "").endswith("."), field


def _documents(text: str) -> list[Any]:
    try:
        return [document for document in yaml.safe_load_all(text) if isinstance(document, dict)]
    except yaml.YAMLError:
        return []


def _of_ours(text: str) -> list[Any]:
    """The documents with a schema, also those in ConfigMaps and Lists."""
    found = []
    for document in _documents(_with_text_times(text)):
        if document.get("apiVersion") == ZTA_VERSION and document.get("kind") in SINGLE:
            found.append(document)
        elif document.get("kind") in ("ConfigMap", "List"):
            below = [*document.get("data", {}).values(), *map(json.dumps, document.get("items", ()))]
            found += [inner for value in below if isinstance(value, str) for inner in _of_ours(value)]
    return found


def _with_text_times(text: str) -> str:
    """The text with times in quotes: an editor reads them as texts, PyYAML as times."""
    return re.sub(r"(?<=[ :\[,{])(\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:\d\d))", r'"\1"', text)


def test_every_document_in_the_repository_is_valid() -> None:
    checked = 0
    for file in files():
        for document in _of_ours(file.read_text(encoding="utf-8")):
            assert errors(document["kind"], document) == [], file
            assert errors(ALL, document) == [], file
            checked += 1
    for fence in fences():
        for document in _of_ours(fence.text):
            assert errors(document["kind"], document) == [], fence
            checked += 1
    assert checked > 25


def test_every_document_in_the_tests_that_the_service_accepts_is_valid() -> None:
    checked = 0
    for file in sorted((ROOT / "tests").rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        if ZTA_VERSION not in source:
            continue
        constants = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
        for text in sorted(text for text in constants if isinstance(text, str) and ZTA_VERSION in text):
            documents = [document for document in _of_ours(text) if document["kind"] in OF_SERVICE]
            if documents and faults(with_certificate(text)) == []:
                for document in documents:
                    assert errors(document["kind"], document) == [], file
                    checked += 1
    assert checked > 20


def test_the_schema_for_all_kinds_refuses_unknown_kinds_of_our_version_only() -> None:
    assert errors(ALL, {"apiVersion": "zta.dev/v1", "kind": "AccesPolicy", "metadata": {"name": "a"}, "spec": {}})
    assert errors(
        ALL, {"apiVersion": "zta.dev/v1", "kind": "AccessPolicy", "metadata": {"name": "a"}, "spec": {"x": 1}}
    )
    assert errors(ALL, {"apiVersion": "v1", "kind": "Secret", "data": {}}) == []
    assert errors(ALL, {"kind": "AccessPolicy"})
