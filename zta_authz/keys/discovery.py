"""An issuer's metadata to the address of its keys (OpenID Connect Discovery 1.0, section 4)."""

from __future__ import annotations

from typing import Final

from zta_authz.authn.encoding import json_object
from zta_authz.keys.outcomes import FetchFailed, Outcome

_WELL_KNOWN: Final = "/.well-known/openid-configuration"


def metadata_url(issuer: str) -> str:
    """Where `issuer` publishes its metadata. Raises `FetchFailed` for an issuer that is no web address."""
    if not issuer.startswith(("https://", "http://")) or "?" in issuer or "#" in issuer:
        raise FetchFailed(Outcome.REFUSED_URL, "the issuer is no https address, so its keys can't be discovered")
    return issuer.removesuffix("/") + _WELL_KNOWN


def jwks_url(issuer: str, metadata: bytes) -> str:
    """The `jwks_uri` in `issuer`'s metadata. Raises `FetchFailed` where the metadata is somebody else's or holds none.

    The issuer must be the very same text: section 4.3, and a final `/` counts. Nothing is fetched over http for an
    issuer that is reached over https.
    """
    try:
        document = json_object(metadata)
    except ValueError:
        raise FetchFailed(Outcome.WRONG_CONTENT, "the issuer's metadata is not a JSON object") from None
    if document.get("issuer") != issuer:
        raise FetchFailed(Outcome.WRONG_ISSUER, "the metadata is of another issuer")
    url = document.get("jwks_uri")
    if not isinstance(url, str) or not url:
        raise FetchFailed(Outcome.WRONG_CONTENT, "the issuer's metadata has no `jwks_uri`")
    if issuer.startswith("https://") and not url.lower().startswith("https://"):
        raise FetchFailed(Outcome.REFUSED_URL, "the metadata of an https issuer names keys that are not on https")
    return url
