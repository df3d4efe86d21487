"""`zta-authz schema`: list, print or write the JSON Schemas of the documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from zta_authz.cli.schema.building import Schema


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog
    from zta_authz.cli.output import add_output_argument
    from zta_authz.cli.schema.names import NAMES

    command = subparsers.add_parser(
        "schema",
        help="print JSON Schemas of documents, for editors and CI",
        description="Print the JSON Schema of a kind of documents, or list the kinds. `all` checks any of them by its "
        "`kind`; `Request` is for request files, which have no `kind`.",
        epilog=epilog(
            "0 printed or written, 2 no such kind, or a file cannot be written",
            "schemas.md",
            "zta-authz schema AccessPolicy",
            "zta-authz schema all > zta-authz.schema.json",
            "zta-authz schema --directory schemas/",
        ),
    )
    command.add_argument("kind", nargs="?", choices=NAMES, metavar="KIND", help="the kind (default: list all kinds)")
    command.add_argument("--directory", metavar="DIR", help="write KIND.json into DIR; without KIND, all schemas")
    add_output_argument(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print or write what was asked for. Raises `FaultsError` if a file cannot be written."""
    from zta_authz.cli.output import print_json, stdout_console
    from zta_authz.cli.schema.catalogue import schema_for
    from zta_authz.cli.schema.names import NAMES, PURPOSES

    chosen = NAMES if arguments.kind is None else (arguments.kind,)
    if arguments.directory is not None:
        files = [_write(Path(arguments.directory), name, schema_for(name)) for name in chosen]
        if arguments.output == "json":
            print_json("SchemaFiles", {"files": files})
        else:
            print("\n".join(files))
    elif arguments.kind is not None:
        print(_text(schema_for(arguments.kind)), end="")
    elif arguments.output == "json":
        print_json("Schemas", {"schemas": [{"name": name, "purpose": purpose} for name, purpose in PURPOSES.items()]})
    else:
        console = stdout_console()
        width = max(map(len, NAMES))
        for name, purpose in PURPOSES.items():
            console.print(f"{name:<{width}}  {purpose}", soft_wrap=True)
    return 0


def _write(directory: Path, name: str, schema: Schema) -> str:
    """Write one schema. Returns the name of its file."""
    from zta_authz.errors import Fault, FaultsError

    file = directory / f"{name}.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file.write_text(_text(schema), encoding="utf-8")
    except OSError as error:
        hint = "name a directory that you may write to"
        raise FaultsError([Fault(str(file), 0, 0, f"cannot be written: {error.strerror}", hint)]) from None
    return str(file)


def _text(schema: Schema) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
