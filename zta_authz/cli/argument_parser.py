"""The argument parser: help with examples and a link to the docs, and suggestions for misspelt arguments."""

from __future__ import annotations

import argparse
import textwrap
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DOCS: Final = "docs/"
"""The directory of the documentation, relative to the root of the repository."""


class HelpFormatter(argparse.HelpFormatter):
    """Wraps paragraphs, except indented ones, which are examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(
            paragraph if "\n  " in paragraph else textwrap.fill(paragraph, width) for paragraph in paragraphs
        )


class ArgumentParser(argparse.ArgumentParser):
    """Suggests a correction for unknown arguments. Each command reports them with its own usage text."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As `argparse.ArgumentParser`."""
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(*arguments, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As `argparse.ArgumentParser.parse_known_args`, but an unknown argument is an error."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._suggested_options(unknown)}")
        return parsed, unknown

    def _suggested_options(self, unknown: Sequence[str]) -> str:
        given = (text.partition("=")[0] for text in unknown if text.startswith("-"))
        known = [name for name in self._option_string_actions if name.startswith("--")]
        return "".join(suggestion(name, known) for name in given)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        near = suggestion(str(value), known) or f"; choose from {', '.join(known)}"
        raise argparse.ArgumentError(action, f"invalid value `{value}`{near}")

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with status 2."""
        from zta_authz.cli.output import one_line

        super().error(f"{one_line(message)} (more: {self.prog} --help)")


def suggestion(given: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?`, or "" if no known word is similar."""
    near = get_close_matches(given, list(known), 1)
    return f"; did you mean `{near[0]}`?" if near else ""


def epilog(status: str, page: str, *examples: str) -> str:
    """Return the end of a command's help: exit statuses, examples and the page in docs/."""
    shown = "\n".join(f"  {example}" for example in examples)
    return f"Exit status: {status}.\n\nExamples:\n{shown}\n\nMore: {DOCS}{page}"
