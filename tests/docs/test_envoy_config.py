"""docs/envoy-config.md matches the command. Other tests run its examples."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from zta_authz.cli.envoy_config.command import PARTS, register

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "envoy-config.md").read_text(encoding="utf-8")


def command() -> argparse.ArgumentParser:
    subparsers = argparse.ArgumentParser().add_subparsers()
    register(subparsers)
    return subparsers.choices["envoy-config"]


def test_every_option_is_documented_and_no_other() -> None:
    has = {
        flag for action in command()._actions for flag in action.option_strings if flag not in ("-h", "--help", "-o")
    }
    tables = set(re.findall(r"^\| `(--[a-z-]+)` \|", PAGE, re.MULTILINE))
    assert tables <= has
    assert [flag for flag in sorted(has) if f"`{flag}" not in PAGE] == []
    assert has - tables == {"--output"}


def test_every_part_is_documented() -> None:
    assert [part for part in PARTS if f"| `{part}`" not in PAGE] == []


def test_each_default_in_the_tables_is_the_one_in_the_help() -> None:
    defaults = {
        action.option_strings[0]: default[1]
        for action in command()._actions
        if action.help and (default := re.search(r"\(default: ([^;)]+)", action.help))
    }
    rows = dict(re.findall(r"^\| `(--[a-z-]+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
    assert len(defaults) >= 8
    wrong = {flag: defaults[flag] for flag, default in rows.items() if flag in defaults and defaults[flag] != default}
    assert wrong == {}
