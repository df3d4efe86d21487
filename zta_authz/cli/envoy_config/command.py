"""`zta-authz envoy-config`: print an Envoy configuration that matches the settings of zta-authz."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse

    from zta_authz.cli.envoy_config.plan import Plan

PARTS: Final = ("bootstrap", "filter", "cluster", "all")
_ROOTS: Final = {
    "filter": "HttpFilter[envoy.filters.http.ext_authz]",
    "cluster": "Cluster[zta_authz]",
    "bootstrap": "Bootstrap",
}
INSTALL: Final = "pip install envoy-data-plane"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "envoy-config",
        help="print the Envoy configuration for zta-authz",
        description="Print the Envoy configuration for zta-authz: a complete bootstrap, the ext_authz filter or its "
        "cluster. Addresses and worker counts come from the settings of zta-authz; options override them.",
        epilog=epilog(
            "0 the configuration was printed, 2 settings or options have faults",
            "envoy-config.md",
            "zta-authz envoy-config --config settings.yaml > envoy.yaml",
            "zta-authz envoy-config --part filter -o json",
        ),
    )
    command.add_argument("--part", choices=PARTS, default="bootstrap", help="what to print (default: bootstrap)")
    command.add_argument(
        "-o",
        "--output",
        choices=("yaml", "json"),
        default="yaml",
        help="output format; only yaml has comments (default: yaml)",
    )
    command.add_argument(
        "--config",
        metavar="FILE",
        help="settings file of zta-authz (default: built-in defaults and environment variables)",
    )
    _add_service(command.add_argument_group("connection from Envoy to zta-authz (default: from the settings)"))
    _add_envoy(command.add_argument_group("Envoy"))
    command.set_defaults(run=run)


def _add_service(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--style", choices=("sidecar", "mtls"), help="connect over Unix sockets, or over TCP with mutual TLS"
    )
    group.add_argument(
        "--authz",
        metavar="ADDRESS",
        action="append",
        help="address of zta-authz: unix:/PATH or HOST:PORT; may be repeated",
    )
    group.add_argument(
        "--workers", metavar="N", type=int, help="sidecar: number of workers, which have one socket each"
    )
    identity = group.add_mutually_exclusive_group()
    identity.add_argument("--authz-id", metavar="SPIFFE_ID", help="mtls: the SPIFFE ID that zta-authz must present")
    identity.add_argument(
        "--trust-domain", metavar="NAME", help="mtls: the trust domain of that SPIFFE ID, whose path is then as in k8s/"
    )
    group.add_argument("--timeout", metavar="TIME", help="timeout of a check, including retries (default: 200ms)")
    group.add_argument(
        "--body-bytes", metavar="N", help="maximum size of the request body that Envoy sends (default: 0; no body)"
    )


def _add_envoy(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--listen", metavar="ADDRESS:PORT", help="listener for clients, with mutual TLS (default: 0.0.0.0:8443)"
    )
    group.add_argument("--upstream", metavar="ADDRESS", help="address of your application (default: 127.0.0.1:8080)")
    group.add_argument(
        "--admin", metavar="ADDRESS", help="Envoy's admin interface, on loopback, or off (default: 127.0.0.1:9901)"
    )
    group.add_argument("--tls-dir", metavar="DIR", help="directory of Envoy's certificates (default: /etc/envoy/tls)")
    group.add_argument(
        "--client-certificates",
        choices=("required", "optional"),
        help="optional: clients without a certificate may use a token or an API key (default: required)",
    )
    group.add_argument(
        "--upstream-protocol",
        choices=("http1", "http2"),
        help="protocol of the application; http2 for gRPC (default: http1)",
    )
    group.add_argument("--websocket", action="store_true", help="support WebSocket connections")
    group.add_argument(
        "--cors-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="origin of pages that may call (CORS); may be repeated",
    )
    group.add_argument(
        "--otlp", metavar="HOST:PORT", help="enable tracing, and send spans to this OTLP collector (gRPC)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print. Raises `FaultsError` if settings or options have faults, or envoy-data-plane is not installed."""
    from zta_authz.cli.envoy_config.plan import read_plan
    from zta_authz.settings import load_settings

    plan = read_plan(arguments, load_settings(arguments.config, os.environ))
    built = _built(plan)
    selected = list(_ROOTS) if arguments.part == "all" else [arguments.part]
    sys.stdout.write(_json(built, selected) if arguments.output == "json" else _yaml(built, selected, plan))
    return 0


def _built(plan: Plan) -> dict[str, dict[str, Any]]:
    from zta_authz.errors import Fault, FaultsError

    try:
        from zta_authz.cli.envoy_config.bootstrap import parts
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("envoy_data_plane", "betterproto2"):
            raise
        what = "the package envoy-data-plane, a dependency of zta-authz, is not installed"
        raise FaultsError([Fault("envoy-config", 0, 0, what, f"run: {INSTALL}")]) from None
    return parts(plan.options)


def _json(built: dict[str, dict[str, Any]], selected: list[str]) -> str:
    shown = built[selected[0]] if len(selected) == 1 else {part: built[part] for part in selected}
    return json.dumps(shown, indent=2, ensure_ascii=True) + "\n"


def _yaml(built: dict[str, dict[str, Any]], selected: list[str], plan: Plan) -> str:
    from zta_authz.cli.envoy_config.comments import annotations_for, header
    from zta_authz.cli.envoy_config.yaml_text import comment, render

    indent = 0 if len(selected) == 1 else 2
    pieces = []
    for part in selected:
        above = "".join(f"{line}\n" for line in comment(header(part, plan)))
        key = f"{part}:\n" if indent else "\n" if part == "bootstrap" else ""
        pieces.append(above + key + render(built[part], _ROOTS[part], annotations_for(plan), indent))
    return "\n".join(pieces)
