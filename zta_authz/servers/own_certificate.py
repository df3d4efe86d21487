"""Validity of the certificates that TCP listeners use from files: our own, and the callers' authorities."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from zta_authz.authn.certificates import ValidityPeriod

if TYPE_CHECKING:
    from os import PathLike


def file_expires_at(cert_file: str | PathLike[str]) -> float | None:
    """Return when the first certificate of a PEM file expires, in epoch seconds, or None if it can't be read."""
    windows = _windows(cert_file)
    return windows[0].not_after if windows else None


class CertificateFiles:
    """Our certificate and our callers' authorities. A file that can't be read is ignored, as the TLS listener does."""

    def __init__(self, cert_file: str, client_ca_file: str) -> None:
        self._files = (cert_file, client_ca_file)
        self._stamps: tuple[object, ...] = ()
        self._own: tuple[ValidityPeriod, ...] = ()
        self._authorities: tuple[ValidityPeriod, ...] = ()

    def problems(self, now: float) -> list[str]:
        """Describe what makes every handshake fail at `now`. Changed files are read again."""
        stamps = tuple(map(_stamp, self._files))
        if stamps != self._stamps:
            self._own, self._authorities = (
                _windows(file) or last for file, last in zip(self._files, (self._own, self._authorities), strict=True)
            )
            self._stamps = stamps
        problems = []
        if self._own and now > self._own[0].not_after:
            problems.append("our certificate in `tls.cert_file` has expired")
        if self._own and now < self._own[0].not_before:
            problems.append("our certificate in `tls.cert_file` is not valid yet")
        if self._authorities and not any(window.not_before <= now <= window.not_after for window in self._authorities):
            problems.append("no authority in `tls.client_ca_file` is valid now")
        return problems


def _windows(file: str | PathLike[str]) -> tuple[ValidityPeriod, ...]:
    try:
        return tuple(map(ValidityPeriod.of, x509.load_pem_x509_certificates(Path(file).read_bytes())))
    except (OSError, ValueError):
        return ()


def _stamp(file: str) -> object:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size)
