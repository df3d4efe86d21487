"""`zta-authz compliance`: what an installation's files show of NIST's zero-trust tenets and three controls.

values         places in files: object, path, line
evidence       what is found, missing or not to be seen
sources        files to objects
inner          texts inside ConfigMaps
authorizers    containers of zta-authz to settings and policies
installation   all of it together
askers         who asks zta-authz
checks         questions to an installation
catalogue      which question is evidence for which tenet or control
report         tables and JSON
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
            "Read manifests, settings and policies, and report what in them is evidence for the tenets of NIST SP "
            "800-207 and for controls AC-4, SC-7 and SC-8 of SP 800-53 Rev. 5, by file and field, or what is missing. "
            "kustomize's sources are rendered first: kubectl kustomize DIRECTORY | zta-authz compliance -"
        ),
        epilog=epilog(
            "0 nothing is missing, 1 something is, 2 wrong input",
            "compliance.md",
            "kubectl kustomize k8s/overlays/istio | zta-authz compliance -",
            "zta-authz compliance manifests/ --strict --quiet -o json",
        ),
    )
    command.add_argument("paths", metavar="PATH", nargs="+", help="manifests: files, directories, - for standard input")
    command.add_argument("--config", metavar="FILE", default="", help="settings (default: from the ConfigMaps)")
    command.add_argument(
        "--policies", metavar="PATH", nargs="+", default=[], help="policies (default: from the ConfigMaps)"
    )
    command.add_argument("--strict", action="store_true", help="what cannot be seen here counts as missing")
    command.add_argument("--quiet", action="store_true", help="leave out of the table what is satisfied")
    command.add_argument(
        "--waive",
        metavar="CHECK=REASON",
        action="append",
        default=[],
        type=_waiver,
        help="accept what this check misses; it is still reported, with the reason; may be repeated",
    )
    command.add_argument("--at", metavar="TIME", type=time_argument, help="judge as of then, RFC 3339 (default: now)")
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
        raise ArgumentTypeError(f"say why, like {check}='partners have API keys'")
    return check, reason.strip()


def run(arguments: argparse.Namespace) -> int:
    """Report. Raises `FaultsError` with all that can't be read, and all that `serve` would refuse."""
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
