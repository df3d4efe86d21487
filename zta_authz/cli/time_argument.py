"""Times on the command line."""

from __future__ import annotations

from argparse import ArgumentTypeError


def time_argument(text: str) -> float:
    """An RFC 3339 time in seconds since the epoch."""
    from zta_authz.cli.request_files import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
