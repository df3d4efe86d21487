"""The remedy in a denial's response: a challenge, or a redirect for browsers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from zta_authz.authn.keys import ASYMMETRIC
from zta_authz.errors import DENIAL_RESPONSES, Reason

if TYPE_CHECKING:
    from zta_authz.errors import DenialResponse
    from zta_authz.model.decision import Remedy
    from zta_authz.model.request import RequestAttributes

_REALM: Final = "zta-authz"
_RESPONSE: Final = DENIAL_RESPONSES[Reason.STEP_UP_REQUIRED]
_SEE_OTHER: Final = 303
_FOUND: Final = 302
_HTML: Final = frozenset(("text/html", "application/xhtml+xml"))
_NO_WEIGHT: Final = frozenset(("q=0", "q=0.0", "q=0.00", "q=0.000"))
_MAX_ACCEPT: Final = 4096
_MAX_RETURN_PATH: Final = 1024
_MAX_RETURN_INPUT: Final = 8192
_TOKEN: Final = re.compile(r"(?<![\w-])ey[\w-]+\.[\w-]+\.[\w-]{40,}", re.ASCII)
"""A JWT, which is a credential whichever parameter it is in: base64url of an object, of claims, of a signature.

The first condition keeps the search linear."""


def speaks_grpc(request: RequestAttributes) -> bool:
    """Whether the caller is a gRPC client, which can't follow a redirect."""
    types = request.headers.all("content-type")
    return bool(types) and types[0].lower().startswith("application/grpc")


def plain_challenge(answer: DenialResponse) -> str:
    """RFC 6750 section 3, RFC 9449 section 7.1. It does not say which check failed, which would help an attacker."""
    challenge = f'{answer.scheme} realm="{_REALM}"'
    return f'{challenge}, error="{answer.bearer_error}"' if answer.bearer_error else challenge


def step_up_challenge(remedy: Remedy) -> str:
    """The value of `WWW-Authenticate` (RFC 9470, section 3; RFC 9449, section 7.1, for a token bound to a DPoP key).

    Rules accept only `acr` values that need no escaping in a quoted string.
    """
    parts = [f'error="{_RESPONSE.bearer_error}"', f'error_description="{_RESPONSE.title}"']
    if remedy.acr:
        parts.append(f'acr_values="{" ".join(remedy.acr)}"')
    if remedy.max_age is not None:
        parts.append(f'max_age="{remedy.max_age}"')
    if remedy.dpop:
        parts.append(f'algs="{" ".join(sorted(ASYMMETRIC))}"')
    return f"{'DPoP' if remedy.dpop else 'Bearer'} {', '.join(parts)}"


def login_redirect(remedy: Remedy, request: RequestAttributes | None) -> tuple[int, str] | None:
    """The status and the address of the login for a browser; None where the request is not for a page.

    The address gets `acr_values` and `max_age`, named as in OpenID Connect, and `{path}` in it becomes the path of the
    request. It contains nothing else of the request.
    """
    if not remedy.login or request is None or not _accepts_html(request):
        return None
    asked = [("acr_values", " ".join(remedy.acr))] if remedy.acr else []
    if remedy.max_age is not None:
        asked.append(("max_age", str(remedy.max_age)))
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in asked)
    address, hash_sign, fragment = remedy.login.partition("#")
    if "{path}" in address:
        address = address.replace("{path}", quote(_return_path(request), safe=""))
    if query:
        address += ("&" if "?" in address else "?") + query
    return (_FOUND if request.method in ("GET", "HEAD") else _SEE_OTHER), address + hash_sign + fragment


def _return_path(request: RequestAttributes) -> str:
    """The path and query to return to after the login; `/` where a login page could read it as another host.

    Parameters that hold a token are left out: the login is another service, and its logs have the address.
    """
    path = _without_tokens(request.path) if len(request.path) <= _MAX_RETURN_INPUT else ""
    fits = request.method in ("GET", "HEAD") and len(path) <= _MAX_RETURN_PATH
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isascii() and path.isprintable()
    return path if fits and plain else "/"


def _without_tokens(path: str) -> str:
    address, _, query = path.partition("?")
    fields = [field for field in query.split("&") if not _TOKEN.search(unquote(field))]
    kept = "&".join(fields)
    return f"{address}?{kept}" if kept else address


def _accepts_html(request: RequestAttributes) -> bool:
    """Whether `Accept` names HTML with a weight above 0 (RFC 9110, section 12.5.1). API clients send `*/*`."""
    return any(_names_html(value) for value in request.headers.all("accept") if len(value) <= _MAX_ACCEPT)


def _names_html(accept: str) -> bool:
    for item in accept.split(","):
        media, _, parameters = item.partition(";")
        weights = [part.strip().lower() for part in parameters.split(";")]
        if media.strip().lower() in _HTML and _NO_WEIGHT.isdisjoint(weights):
            return True
    return False
