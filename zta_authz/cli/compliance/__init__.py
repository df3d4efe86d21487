"""`zta-authz compliance`: report evidence for NIST's zero-trust tenets and three controls.

values         values with their location: object, path, line
evidence       results of checks: satisfied, missing, unseen
sources        reads files into objects
embedded_text  texts inside ConfigMaps
authorizers    reads settings and policies of zta-authz containers
installation   all objects, authorizers and Envoy configurations
ext_authz_clients  the proxies that call zta-authz
checks         the checks of an installation
catalogue      which check is evidence for which tenet or control
report         output as tables or JSON
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.cli.output import add_output_argument
from zta_authz.cli.time_argument import time_argument

if TYPE_CHECKING:
    import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    from zta_authz.cli.argument_parser import epilog

    command = subparsers.add_parser(
        "compliance",
        help="report evidence for NIST SP 800-207 and controls AC-4, SC-7, SC-8",
        description=(
            "Read manifests, settings and policies, and report the evidence for the tenets of NIST SP 800-207 and for "
            "controls AC-4, SC-7 and SC-8 of SP 800-53 Rev. 5 by file and field, and what is missing. Render "
            "kustomizations first: kubectl kustomize DIRECTORY | zta-authz compliance -"
        ),
        epilog=epilog(
            "0 nothing is missing, 1 something is missing, 2 the input has faults",
            "compliance.md",
            "kubectl kustomize k8s/overlays/istio | zta-authz compliance -",
            "zta-authz compliance manifests/ --strict --quiet -o json",
        ),
    )
    command.add_argument(
        "paths", metavar="PATH", nargs="+", help="manifests: files, directories or `-` for standard input"
    )
    command.add_argument("--config", metavar="FILE", default="", help="settings file (default: from the ConfigMaps)")
    command.add_argument(
        "--policies", metavar="PATH", nargs="+", default=[], help="policies (default: from the ConfigMaps)"
    )
    command.add_argument("--strict", action="store_true", help="count what can't be seen here as missing")
    command.add_argument("--quiet", action="store_true", help="omit satisfied checks from the table")
    command.add_argument(
        "--waive",
        metavar="CHECK=REASON",
        action="append",
        default=[],
        type=_waiver,
        help="accept what is missing for this check; the report shows the reason; may be repeated",
    )
    command.add_argument(
        "--at", metavar="TIME", type=time_argument, help="judge certificates as of this time, RFC 3339 (default: now)"
    )
    add_output_argument(command)
    command.set_defaults(run=run)


def _waiver(text: str) -> tuple[str, str]:
    from argparse import ArgumentTypeError

    from zta_authz.cli.argument_parser import suggestion
    from zta_authz.cli.compliance.catalogue import CHECKS

    check, _, reason = text.partition("=")
    known = [check.id for check in CHECKS]
    if check not in known:
        hint = suggestion(check, known) or "; docs/compliance.md lists the checks"
        raise ArgumentTypeError(f"there is no check `{check}`{hint}")
    if not reason.strip():
        raise ArgumentTypeError(f"add a reason, for example {check}='partners have API keys'")
    return check, reason.strip()


def run(arguments: argparse.Namespace) -> int:
    """Report. Raises `FaultsError` with everything that can't be read or that `serve` would refuse."""
    import time
    from dataclasses import replace

    from zta_authz.cli.compliance.authorizers import Overrides
    from zta_authz.cli.compliance.catalogue import judge
    from zta_authz.cli.compliance.installation import load_installation
    from zta_authz.cli.compliance.report import exit_status, print_report, report_fields
    from zta_authz.cli.output import print_json, stdout_console

    now = time.time() if arguments.at is None else arguments.at
    installation = load_installation(arguments.paths, Overrides(arguments.config, tuple(arguments.policies)), now)
    waivers = dict(arguments.waive)
    evidence = [replace(result, waiver=waivers.get(result.check.id, "")) for result in judge(installation)]
    if arguments.output == "json":
        print_json("ComplianceReport", report_fields(installation, evidence))
    else:
        print_report(stdout_console(), evidence, quiet=arguments.quiet)
    return exit_status(evidence, strict=arguments.strict)
