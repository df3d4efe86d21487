"""Trust domains and SPIFFE IDs, exactly as in the SPIFFE-ID specification (section 2).

    spiffe-id      = "spiffe://" trust-domain path        at most 2048 bytes
    trust-domain   = 1*255( a-z / 0-9 / "." / "-" / "_" )
    path           = *( "/" segment )                     no trailing "/"
    segment        = 1*( A-Z / a-z / 0-9 / "." / "-" / "_" )   never "." or ".."

No percent-encoding, no port, no user info, no query, no fragment, no upper case in the trust domain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_SPIFFE_ID_BYTES = 2048
SCHEME = "spiffe://"

TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*")


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """A trust domain name such as `cluster.local`; use `parse` for text from outside."""

    name: str

    @classmethod
    def parse(cls, text: str) -> TrustDomain:
        """Parse a trust domain name without scheme or path. Raises ValueError with what is wrong."""
        if not TRUST_DOMAIN.fullmatch(text):
            raise ValueError("a trust domain is 1 to 255 characters of a-z, 0-9, `.`, `-` and `_`, in lower case")
        return cls(text)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A SPIFFE ID; `path` is "" for the trust domain itself, else starts with "/"."""

    trust_domain: TrustDomain
    path: str

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Parse a SPIFFE ID without normalising it. Raises ValueError with what is wrong."""
        if len(text) > MAX_SPIFFE_ID_BYTES:
            raise ValueError(f"a SPIFFE ID has at most {MAX_SPIFFE_ID_BYTES} bytes")
        if not text.startswith(SCHEME):
            raise ValueError("a SPIFFE ID starts with `spiffe://`, in lower case")
        rest = text[len(SCHEME) :]
        name, slash, tail = rest.partition("/")
        trust_domain = TrustDomain.parse(name)
        path = slash + tail
        if not _PATH.fullmatch(path):
            raise ValueError(
                "the path of a SPIFFE ID has non-empty segments of A-Z, a-z, 0-9, `.`, `-` and `_`, none of them "
                "`.` or `..`, and no trailing `/`"
            )
        return cls(trust_domain, path)

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain.name}{self.path}"
