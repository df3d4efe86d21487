"""Inputs that commands share: settings with overrides from the command line, and small files."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault, FaultsError
from zta_authz.model.options import Semantics
from zta_authz.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.model.options import Options

MAX_REQUEST_BYTES: Final = 1024 * 1024
STDIN: Final = "-"


def add_settings_arguments(command: argparse.ArgumentParser) -> None:
    """Add `--config` and the options that override single settings."""
    group = command.add_argument_group("how policies are read (default: as `serve` reads them with the same settings)")
    group.add_argument(
        "--config", metavar="FILE", help="settings file in YAML (default: built-in defaults and environment variables)"
    )
    group.add_argument(
        "--semantics", choices=[str(choice) for choice in Semantics], help="how policies are interpreted"
    )
    group.add_argument("-n", "--namespace", metavar="NS", help="the workload's namespace")
    group.add_argument(
        "-l",
        "--label",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_label,
        help="a label of the workload; may be repeated",
    )
    group.add_argument("--root-namespace", metavar="NS", help="the namespace whose policies apply to every workload")


def _label(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise argparse.ArgumentTypeError("write KEY=VALUE, for example app=hatshop")
    return key, value


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Load the settings as `serve` does, and apply the command-line overrides. Raises `SettingsErrors`."""
    settings = load_settings(arguments.config, os.environ)
    workload: dict[str, object] = {}
    if arguments.namespace:
        workload["namespace"] = arguments.namespace
    if arguments.label:
        workload["labels"] = {**settings.workload.labels, **dict(arguments.label)}
    update: dict[str, object] = {"workload": settings.workload.model_copy(update=workload)}
    if arguments.semantics:
        update["semantics"] = Semantics(arguments.semantics)
    if arguments.root_namespace:
        update["root_namespace"] = arguments.root_namespace
    return settings.model_copy(update=update)


def options_for(settings: Settings, paths: Sequence[str]) -> Options:
    """Return the options of the settings, for the policies at `paths` if there are any.

    With `paths`, `root_documents.paths` is not applied: it names files of the service, not these.
    """
    if not paths:
        return settings.options()
    root_documents = settings.root_documents.model_copy(update={"paths": None})
    return settings.model_copy(update={"policies": tuple(paths), "root_documents": root_documents}).options()


def read_small_file(name: str, hint: str, limit: int = MAX_REQUEST_BYTES) -> bytes:
    """Read file `name` (`-` is standard input). Raises `FaultsError` with `hint` if that fails or it is too large."""
    try:
        if name == STDIN:
            content = sys.stdin.buffer.read(limit + 1)
        else:
            with open(name, "rb") as stream:
                content = stream.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FaultsError([Fault(name, 0, 0, f"cannot be read: {reason}", hint)]) from None
    if len(content) > limit:
        raise FaultsError([Fault(name, 0, 0, f"is larger than {limit // 1024} KiB", hint)])
    return content


def as_text(name: str, content: bytes) -> str:
    """Decode `content` as UTF-8. Raises `FaultsError` with the line and column of the first invalid byte."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise FaultsError([Fault(name, line, column, "the file is not UTF-8", "save it as UTF-8 text")]) from None
