"""The policy reference matches the code."""

from __future__ import annotations

import re
from pathlib import Path

from zta_authz.errors import Reason
from zta_authz.model.options import Options, Workload
from zta_authz.pdp.snapshot import SourceText, compile_snapshot
from zta_authz.policy.cel.condition import MAX_LENGTH
from zta_authz.policy.cel.variables import VARIABLES
from zta_authz.policy.documents.reader import KINDS
from zta_authz.policy.rules.clause_factory import KNOWN_KEYS, OWN_KEYS

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "policies.md").read_text(encoding="utf-8")


def test_every_example_loads() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) == 8
    sources = [SourceText(f"example-{number}.yaml", text) for number, text in enumerate(examples)]
    snapshot = compile_snapshot(sources, Options(workload=Workload("shop", {"app": "orders"})))
    assert snapshot.table.rule_count == 5


def test_every_variable_of_conditions_is_described() -> None:
    rows = dict(
        re.findall(
            r"^\| `([\w.]+)` \| (?:string|int|bool|double|timestamp|(?:map|list)\(.*?\)) \| (.*?) \|$",
            TEXT,
            re.MULTILINE,
        )
    )
    assert rows == {name: variable.doc for name, variable in VARIABLES.items()}
    assert f"more than {MAX_LENGTH} characters" in TEXT


def test_every_kind_and_every_condition_key_is_named() -> None:
    assert {kind for _, kind in KINDS} <= set(re.findall(r"`(\w+)`", TEXT))
    text = TEXT + (DOCS / "facts.md").read_text(encoding="utf-8")
    written = text.replace("[NAME]", "[name]").replace("[A][B]", "[name]").replace("NAME[KEY]", "NAME[key]")
    assert [key for key in (*KNOWN_KEYS, *OWN_KEYS) if f"`{key}`" not in written] == []


def test_every_reason_it_names_exists() -> None:
    differences = TEXT.partition("## Strict and Istio semantics")[2]
    named = set(re.findall(r"`((?:peer|token|path|host|method|no|deny)_[a-z_]+)`", differences))
    assert len(named) > 15
    assert named <= {reason.value for reason in Reason}
