"""Until when the certificates in files hold that TCP listeners use: ours, and those of the callers' authorities."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from zta_authz.authn.certificates import Window

if TYPE_CHECKING:
    from os import PathLike


def file_ends_at(cert_file: str | PathLike[str]) -> float | None:
    """When the first certificate of a PEM file ends, in seconds since the epoch; None for a file that can't be read."""
    windows = _windows(cert_file)
    return windows[0].not_after if windows else None


class CertificateFiles:
    """Our certificate and the authorities of our callers. A file that can't be read says nothing: it is not taken."""

    def __init__(self, cert_file: str, client_ca_file: str) -> None:
        self._files = (cert_file, client_ca_file)
        self._stamps: tuple[object, ...] = ()
        self._own: tuple[Window, ...] = ()
        self._authorities: tuple[Window, ...] = ()

    def wrong(self, now: float) -> list[str]:
        """What keeps every handshake from succeeding at `now`, in words; looks at files again that changed."""
        stamps = tuple(map(_stamp, self._files))
        if stamps != self._stamps:
            self._own, self._authorities = (_windows(file) or kept for file, kept in self._now())
            self._stamps = stamps
        found = []
        if self._own and now > self._own[0].not_after:
            found.append("our certificate in `tls.cert_file` has expired")
        if self._own and now < self._own[0].not_before:
            found.append("our certificate in `tls.cert_file` is not valid yet")
        if self._authorities and not any(each.not_before <= now <= each.not_after for each in self._authorities):
            found.append("no authority in `tls.client_ca_file` is valid now")
        return found

    def _now(self) -> tuple[tuple[str, tuple[Window, ...]], ...]:
        return tuple(zip(self._files, (self._own, self._authorities), strict=True))


def _windows(file: str | PathLike[str]) -> tuple[Window, ...]:
    try:
        return tuple(map(Window.of, x509.load_pem_x509_certificates(Path(file).read_bytes())))
    except (OSError, ValueError):
        return ()


def _stamp(file: str) -> object:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)
