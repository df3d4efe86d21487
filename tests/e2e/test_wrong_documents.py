"""A process with wrong documents exits with 2 and prints location, fault and remedy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
GOOD = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: good
  namespace: default
spec:
  rules:
  - to:
    - operation:
        methods: ["GET"]
"""
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wrong:
    """A wrong file, and the place (line:column, "" for the file as a whole) and words of the fault it must give."""

    text: str
    place: str
    words: tuple[str, ...]


WRONG = {
    "not YAML": Wrong("kind: [AuthorizationPolicy\nspec: }\n", r"2:\d+", ()),
    "no mapping": Wrong("- a\n- b\n", "1:1", ()),
    "unknown kind": Wrong(
        GOOD.replace("kind: AuthorizationPolicy", "kind: AuthorizationPolcy"), r"2:\d+", ("AuthorizationPolcy",)
    ),
    "unknown apiVersion": Wrong(GOOD.replace("io/v1", "io/v9"), r"1:\d+", ("security.istio.io/v9",)),
    "unknown field": Wrong(GOOD.replace("methods:", "method:"), "10:9", ("method",)),
    "wrong type": Wrong(GOOD.replace('["GET"]', '{"GET": 1}'), "10:18", ()),
    "a number where text belongs": Wrong(GOOD.replace('["GET"]', "[200]"), "10:19", ()),
    "an unknown action": Wrong(GOOD.replace("spec:", "spec:\n  action: ALOW"), "7:11", ("ALOW",)),
    "an unknown condition": Wrong(
        GOOD.replace("  - to:", '  - when: [{key: source.nme, values: ["a"]}]\n    to:'),
        r"8:\d+",
        ("source.nme",),
    ),
    "a key twice": Wrong(GOOD.replace("  name: good\n", "  name: good\n  name: better\n"), r"5:\d+", ("name",)),
    "an empty file": Wrong("", "1:1", ()),
    "only comments": Wrong("# nothing here\n", r"\d+:\d+", ()),
    "the same name twice": Wrong(f"{GOOD}---\n{GOOD}", r"1[0-9]:\d+", ("good",)),
    "too large": Wrong(f"# {'x' * 1021}\n" * (50 * 1024) + GOOD, "", ("MiB",)),
}


def _serve(policies: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "zta-authz.yaml"
    settings = {"listen": [f"unix:{tmp_path / 'a.sock'}"], "policies": [str(policies)], "health": {"listen": None}}
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "zta_authz", "serve", "--config", str(config)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZTA_")}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY, env=environment
    )


@pytest.mark.parametrize("name", WRONG)
def test_serve_refuses_a_wrong_document_beside_a_good_one(tmp_path: Path, name: str) -> None:
    wrong = WRONG[name]
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "a-good.yaml").write_text(GOOD.replace("name: good", "name: another"))
    (policies / "wrong.yaml").write_text(wrong.text)

    done = _serve(policies, tmp_path)

    assert done.returncode == 2
    place = f":{wrong.place}" if wrong.place else "(?::1:1)?"
    fault = re.search(rf"wrong\.yaml{place}: (?P<what>.+)$", done.stderr, re.MULTILINE)
    assert fault, done.stderr
    assert "; " in fault["what"], f"does not say what to write instead: {fault['what']}"
    for word in wrong.words:
        assert word in fault["what"]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "a.sock").exists()


def test_serve_reports_every_fault_of_every_file_at_once(tmp_path: Path) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "one.yaml").write_text(WRONG["unknown field"].text)
    (policies / "two.yaml").write_text(WRONG["an unknown action"].text.replace("name: good", "name: two"))
    stderr = _serve(policies, tmp_path).stderr
    assert "one.yaml:10:9:" in stderr
    assert "two.yaml:7:11:" in stderr


def test_serve_refuses_a_directory_that_is_missing(tmp_path: Path) -> None:
    done = _serve(tmp_path / "nowhere", tmp_path)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_refuses_settings_with_an_unknown_key(tmp_path: Path) -> None:
    config = tmp_path / "zta-authz.yaml"
    config.write_text("listn: [unix:/x]\n")
    command = [sys.executable, "-m", "zta_authz", "serve", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY)
    assert done.returncode == 2
    assert f"{config}:1:1:" in done.stderr
    assert "listn" in done.stderr
