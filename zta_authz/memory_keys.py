"""Private keys for Python's `ssl`, which reads them only from named files.

A key is written to an anonymous file in memory (memfd_create(2)), read through its name in /proc, and closed. It is
never stored in a file system.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


def use_key(context: ssl.SSLContext, chain_pem: bytes, key_pem: bytes) -> None:
    """Make `context` present the certificate chain with its key. Raises OSError, which includes `ssl.SSLError`."""
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(chain_pem + b"\n" + key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
    finally:
        os.close(descriptor)


def _no_password() -> bytes:
    """OpenSSL would ask for the password of an encrypted key on the terminal."""
    return b""
