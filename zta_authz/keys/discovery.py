"""Issuer metadata: finds the address of an issuer's keys (OpenID Connect Discovery 1.0, section 4)."""

from __future__ import annotations

from typing import Final

from zta_authz.authn.encoding import json_object
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome

_WELL_KNOWN: Final = "/.well-known/openid-configuration"


def metadata_url(issuer: str) -> str:
    """Return the URL of `issuer`'s metadata. Raises `FetchFailed` if the issuer is not an http(s) URL."""
    if not issuer.startswith(("https://", "http://")) or "?" in issuer or "#" in issuer:
        raise FetchFailed(FetchOutcome.REFUSED_URL, "the issuer is not an https URL, so its keys can't be discovered")
    return issuer.removesuffix("/") + _WELL_KNOWN


def jwks_url(issuer: str, metadata: bytes) -> str:
    """Return the `jwks_uri` in `issuer`'s metadata.

    Raises:
        FetchFailed: the metadata names another issuer (section 4.3: the text must be identical, including a final
            `/`), has no `jwks_uri`, or sends an https issuer to plain http.
    """
    try:
        document = json_object(metadata)
    except ValueError:
        raise FetchFailed(FetchOutcome.WRONG_CONTENT, "the issuer's metadata is not a JSON object") from None
    if document.get("issuer") != issuer:
        raise FetchFailed(FetchOutcome.WRONG_ISSUER, "the metadata belongs to another issuer")
    url = document.get("jwks_uri")
    if not isinstance(url, str) or not url:
        raise FetchFailed(FetchOutcome.WRONG_CONTENT, "the issuer's metadata has no `jwks_uri`")
    if issuer.startswith("https://") and not url.lower().startswith("https://"):
        raise FetchFailed(FetchOutcome.REFUSED_URL, "the metadata of an https issuer names a `jwks_uri` without https")
    return url
