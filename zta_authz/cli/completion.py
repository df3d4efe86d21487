"""`zta-authz completion`: print a shell script that completes commands, options and their values."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PROGRAM: Final = "zta-authz"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "completion",
        help="print a completion script for your shell",
        description="Print a shell script that completes commands, options and their values.",
        epilog=epilog(
            "0 the script was printed",
            "cli.md#completion",
            "zta-authz completion bash > ~/.local/share/bash-completion/completions/zta-authz",
        ),
    )
    command.add_argument("shell", choices=sorted(_SCRIPTS), help="the shell that loads the script")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from zta_authz.cli.main import parser

    sys.stdout.write(_SCRIPTS[arguments.shell](list(_commands(parser()))))
    return 0


class _Option(NamedTuple):
    names: tuple[str, ...]
    takes_value: bool
    choices: tuple[str, ...]
    help: str


class _Command(NamedTuple):
    """A command to complete. `words` is empty for the program itself; `choices` are values of positional arguments."""

    words: tuple[str, ...]
    help: str
    options: tuple[_Option, ...]
    choices: tuple[str, ...]


def _commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = (), text: str = "") -> Iterator[_Command]:
    """Yield the program, its commands and their subcommands."""
    options: list[_Option] = []
    choices: list[str] = []
    below: list[_Command] = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list them
        values = tuple(str(choice) for choice in action.choices or ())
        if action.option_strings and action.help != argparse.SUPPRESS:
            options.append(_Option(tuple(action.option_strings), action.nargs != 0, values, _plain(action.help or "")))
        elif not action.option_strings:
            choices += values
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            helps = {str(choice.dest): choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            for name, subparser in action.choices.items():
                below += _commands(subparser, (*words, name), helps.get(name, ""))
    yield _Command(words, _plain(text), tuple(options), tuple(choices))
    yield from below


def _plain(text: str) -> str:
    """Remove the characters of `text` that are special in one of the shells."""
    return re.sub(r"[^\w .,;()/=+\u2019-]", "", text.replace("%(default)s", "").replace("'", "\u2019"))


def _bash(commands: list[_Command]) -> str:
    cases, values = [], []
    for command in commands:
        path = " ".join(command.words)
        names = " ".join(name for option in command.options for name in option.names)
        cases.append(f'    "{path}") options="{names}"; choices="{" ".join(command.choices)}" ;;')
        for option in (option for option in command.options if option.choices):
            pattern = "|".join(f'"{path} {name}"' for name in option.names)
            values.append(f'    {pattern}) choices="{" ".join(option.choices)}"; options="" ;;')
    paths = "|".join(f'"{" ".join(command.words)}"' for command in commands if command.words)
    return "\n".join(
        [
            f"# bash completion for {_PROGRAM}, made by `{_PROGRAM} completion bash`",
            "_zta_authz() {",
            '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
            '  local path="" at next options choices',
            "  for ((at = 1; at < COMP_CWORD; at++)); do",
            '    next="${path:+$path }${COMP_WORDS[at]}"',
            f'    case "$next" in {paths}) path="$next" ;; esac',
            "  done",
            '  case "$path" in',
            *cases,
            "  esac",
            '  case "$path $before" in',
            *values,
            "  esac",
            '  if [[ $word == -* ]]; then COMPREPLY=($(compgen -W "$options" -- "$word"))',
            '  elif [[ -n $choices ]]; then COMPREPLY=($(compgen -W "$choices" -- "$word"))',
            '  else COMPREPLY=($(compgen -f -- "$word")); fi',
            "}",
            f"complete -o filenames -F _zta_authz {_PROGRAM}",
            "",
        ]
    )


def _zsh(commands: list[_Command]) -> str:
    """Return the bash script with the lines that let zsh run it."""
    head = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"
    return head + _bash(commands)


def _fish(commands: list[_Command]) -> str:
    lines = [f"# fish completion for {_PROGRAM}, made by `{_PROGRAM} completion fish`"]
    names = [command.words[0] for command in commands if len(command.words) == 1]
    first = f"not __fish_seen_subcommand_from {' '.join(names)}"
    for command in commands:
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words) or first
        if len(command.words) == 1:
            lines.append(f"complete -c {_PROGRAM} -f -n '{first}' -a {command.words[0]} -d '{command.help}'")
        elif command.words:
            above = f"__fish_seen_subcommand_from {command.words[0]}"
            lines.append(f"complete -c {_PROGRAM} -f -n '{above}' -a {command.words[-1]} -d '{command.help}'")
        if command.words and command.choices and not _has_commands(command, commands):
            lines.append(f"complete -c {_PROGRAM} -f -n '{seen}' -a '{' '.join(command.choices)}'")
        for option in command.options:
            words = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = f" -x -a '{' '.join(option.choices)}'" if option.choices else " -r" if option.takes_value else ""
            lines.append(f"complete -c {_PROGRAM} -n '{seen}' {words}{value} -d '{option.help}'")
    return "\n".join([*lines, ""])


def _has_commands(command: _Command, commands: list[_Command]) -> bool:
    return any(other.words[:-1] == command.words for other in commands if other.words)


_SCRIPTS: Final[dict[str, Callable[[list[_Command]], str]]] = {"bash": _bash, "fish": _fish, "zsh": _zsh}
