"""The type of command-line arguments that are times."""

from __future__ import annotations

from argparse import ArgumentTypeError


def time_argument(text: str) -> float:
    """Parse an RFC 3339 time into seconds since the epoch. Raises `ArgumentTypeError`."""
    from zta_authz.cli.request_files import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
