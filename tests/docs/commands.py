"""Check that documented commands exist: programs, sub-commands, flags, make targets, modules, paths."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import re
import shlex
from functools import cache
from pathlib import Path

from tests.docs.fences import ROOT
from zta_authz.cli.main import parser

_OURS = re.compile(r"^(?:\./)?(?:k8s|envoy|docs|bench|tests|protos)/[\w./-]+$")
_OPERATORS = {"|", "||", "&&", ";", "&", "(", ")", "{", "}", ";;"}
_OTHERS = frozenset(
    [
        "bash",
        "cat",
        "cd",
        "cp",
        "curl",
        "docker",
        "echo",
        "envoy",
        "export",
        "git",
        "grpcurl",
        "grep",
        "head",
        "helm",
        "istioctl",
        "jq",
        "kubectl",
        "mkdir",
        "openssl",
        "printf",
        "promtool",
        "sed",
        "sha256sum",
        "tee",
        "diff",
        "kill",
        "own",
        "shop",
        "$ENVOY",
        "ls",
        "rm",
        "true",
        "sleep",
        "tail",
        "tr",
    ]
)
"""Programs of others, and `own` and `shop`, the getting-started page's functions; of their arguments only our paths are checked."""
_KUBECTL = frozenset(
    [
        "annotate",
        "apply",
        "create",
        "delete",
        "diff",
        "exec",
        "get",
        "kustomize",
        "label",
        "logs",
        "rollout",
        "scale",
        "wait",
    ]
)
_ID = "0123456789abcdef"
_ROUNDABOUT = frozenset(("exec", "time", "sudo"))


class WrongCommand(AssertionError):
    """A documented command that does not exist."""


def logical_lines(text: str) -> list[str]:
    """Return the commands of a block, with continued lines joined, without here-documents, comments and output.

    If a line begins with `$ `, only such lines are commands.
    """
    joined = re.sub(r" *\\\n\s*", " ", text)
    lines = joined.splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    commands, end = [], ""
    for line in lines:
        if end:
            end = "" if line.strip() == end else end
            continue
        here = re.search(r"<<-?\s*['\"]?(\w+)", line)
        end = here[1] if here else ""
        if line.strip() and not line.strip().startswith("#"):
            commands.append(line.strip())
    return _with_variables(commands)


def _with_variables(commands: list[str]) -> list[str]:
    """Replace the variables that a line of the block sets, to a plain text or to what a command prints: an ID."""
    printed = (re.match(r"([a-z_]+)=\$\(", command) for command in commands)
    set_here = (re.fullmatch(r'([a-z_]+)="([^"$]*)"', command) for command in commands)
    values = {match[1]: _ID for match in printed if match} | {match[1]: match[2] for match in set_here if match}
    return [re.sub(r"\$([a-z_]+)\b", lambda match: values.get(match[1], match[0]), command) for command in commands]


def simple_commands(line: str) -> list[list[str]]:
    """Split a line into commands at pipes and lists. Returns the words of each."""
    if re.match(r"\w+\(\) *\{", line):
        line = line.partition("{")[2].rpartition("}")[0]
    lexer = shlex.shlex(re.sub(r"\s#\s.*$", "", line), posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    redirected = False
    for word in lexer:
        if word in _OPERATORS:
            commands.append([])
        elif set(word) <= {"<", ">", "&"}:
            redirected = True
            if commands[-1] and commands[-1][-1].isdecimal():  # `2>`
                commands[-1].pop()
        elif redirected:
            redirected = False
        else:
            commands[-1].append(word)
    return [words for words in (_without_prefix(words) for words in commands) if words]


def _without_prefix(words: list[str]) -> list[str]:
    while words and (re.match(r"[A-Za-z_]\w*=", words[0]) or words[0] in _ROUNDABOUT):
        words = words[1:]
    return words


def check_line(line: str) -> None:
    """Check one command. Raises WrongCommand with the reason."""
    if re.match(r"zta-authz .*[\[…]", line):
        _synopsis(line)
        return
    for words in simple_commands(line):
        _check(words)


def _check(words: list[str]) -> None:
    program, arguments = Path(words[0]).name, words[1:]
    if program == "zta-authz":
        _zta_authz(arguments)
    elif program == "make":
        _make(arguments)
    elif program.startswith("python"):
        _python(arguments)
    elif program in _OTHERS:
        if program == "kubectl":
            _kubectl(arguments)
    else:
        raise WrongCommand(f"nobody knows `{program}`")
    if program != "python":
        _paths(arguments)


def _paths(arguments: list[str]) -> None:
    gone = [word for word in arguments if _OURS.match(word) and not (ROOT / word).exists()]
    if gone:
        raise WrongCommand(f"not there: {gone}")


def _zta_authz(arguments: list[str]) -> None:
    output = io.StringIO()
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
        try:
            parser().parse_args(arguments)
        except SystemExit as error:
            if error.code:
                raise WrongCommand(output.getvalue()) from None


def _subparser(arguments: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    subparser, rest = parser(), list(arguments)
    while rest:
        choices = [action.choices for action in subparser._actions if isinstance(action, argparse._SubParsersAction)]
        if not choices or rest[0] not in choices[0]:
            break
        subparser = choices[0][rest.pop(0)]
    return subparser, rest


def _synopsis(line: str) -> None:
    words = re.findall(r"[^\s\[\]|]+", line)[1:]
    command, rest = _subparser(words)
    if rest == words:
        raise WrongCommand(f"`zta-authz` has no command `{words[0]}`")
    flags = {flag for action in command._actions for flag in action.option_strings}
    wrong = [word for word in rest if word.startswith("-") and word not in flags]
    if wrong:
        raise WrongCommand(f"{line}: no such flags: {wrong}")


@cache
def _makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def _make(arguments: list[str]) -> None:
    for word in arguments:
        name, equals, _ = word.partition("=")
        if equals:
            if not re.search(rf"^{name} [?:]?=|\$\({name}\)|\b{name}=", _makefile(), re.MULTILINE):
                raise WrongCommand(f"the Makefile knows no {name}")
        elif not re.search(rf"^{re.escape(name)}:", _makefile(), re.MULTILINE):
            raise WrongCommand(f"there is no `make {name}`")


def _python(arguments: list[str]) -> None:
    if arguments[:2] == ["-m", "pytest"]:
        _paths(arguments)
        return
    if arguments[:1] == ["-m"]:
        if arguments[1] not in {"http.server", "json.tool", "venv", "pip"}:
            _module(arguments[1], arguments[2:])
        return
    if arguments[:1] == ["-c"]:
        compile(arguments[1], "<documented>", "exec")
        return
    _paths(arguments[:1])


def _module(name: str, arguments: list[str]) -> None:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise WrongCommand(f"there is no module `{name}`")
    files = [Path(spec.origin)]
    if spec.submodule_search_locations:
        files = [file for place in spec.submodule_search_locations for file in Path(place).glob("*.py")]
        if not any(file.name == "__main__.py" for file in files):
            raise WrongCommand(f"`python -m {name}` can't be run")
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    wrong = [word for word in arguments if word.startswith("--") and f'"{word.partition("=")[0]}"' not in text]
    if wrong:
        raise WrongCommand(f"{name} has no {wrong}")


def _kubectl(arguments: list[str]) -> None:
    words = list(arguments)
    while words and words[0] in {"-n", "--namespace", "--context"}:
        words = words[2:]
    if not words or words[0] not in _KUBECTL:
        raise WrongCommand(f"kubectl: nobody knows {words[:1]}")
