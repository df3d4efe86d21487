"""When the certificate that we show to proxies ends, for those who watch that it is renewed in time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from os import PathLike


def file_ends_at(cert_file: str | PathLike[str]) -> float | None:
    """When the first certificate of a PEM file ends, in seconds since the epoch; None for a file that can't be read."""
    try:
        return x509.load_pem_x509_certificates(Path(cert_file).read_bytes())[0].not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return None
