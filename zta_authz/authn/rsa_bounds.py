"""Limits on RSA keys of any source: sizes and exponents that make verification safe and cheap.

A verification costs about the square of the modulus' bits times the exponent's bits. With an exponent as long as the
modulus it takes 30 ms, and the sender of a proof or an intermediate chooses the exponent.
"""

from __future__ import annotations

from typing import Final

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
MAX_EXPONENT_BITS: Final = 33
"""The limit of BoringSSL, and so of Envoy; real exponents are 3 and 65537."""


def rsa_weakness(bits: int, exponent: int) -> str:
    """Why an RSA key of `bits` bits with this public exponent is not accepted, "" if it is."""
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        return f"an RSA key of {bits} bits, outside {MIN_RSA_BITS} to {MAX_RSA_BITS}"
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > MAX_EXPONENT_BITS:
        return f"an RSA key whose exponent is not an odd number from 3 to 2^{MAX_EXPONENT_BITS}"
    return ""
