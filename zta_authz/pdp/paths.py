"""Detect paths, hosts and methods that two parties may read differently, to refuse them before any rule.

Otherwise a spelling that the upstream reads as `/admin`, and a rule does not, could evade a rule on `/admin`. An
operator may accept ambiguous paths (`paths.ambiguous`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason

if TYPE_CHECKING:
    from zta_authz.policy.rules.inputs import Inputs

# Nearly all paths are plain; one linear scan recognises them.
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,:@=-][A-Za-z0-9_~!$&'()*+,:@=.-]*)+/?|/")

MAX_PATH_CHARACTERS: Final = 8192
"""The longest path, without its query, with strict semantics. Most servers accept no longer request line."""

# Ambiguities other than escapes, in the order in which they are reported.
_SUSPECTS: Final = (
    (re.compile(r"\A[^/]"), "it does not start with `/`"),
    (re.compile(r"//"), "an empty segment"),
    (re.compile(r"/\.{1,2}(?:[/;]|\Z)"), "a dot segment"),
    (re.compile(r"\\"), "a backslash"),
    (re.compile(r";"), "path parameters (`;`)"),
    (re.compile(r"#"), "`#`, or an encoded `#` or `?`"),
    (re.compile(r"[\x00-\x20\x7f]"), "a control character or blank"),
    (re.compile(r"[^\x00-\x7f]"), "a character outside ASCII"),
)
# Escapes are checked in one pass, because a path may contain thousands. These have only one reading.
_PLAIN_ESCAPE: Final = (
    r"2[0-246-9A-Ca-c]|3[ACDEacde]|40|5[BDEbde]|60|7[B-Db-d]"  # RFC 3986: characters that may need encoding
    r"|[89A-Ba-bDd][0-9A-Fa-f]|[cC][2-9A-Fa-f]|[eE](?!0%[89])[0-9A-Fa-f]|[fF](?!0%8)[0-9A-Fa-f]"  # UTF-8, none overlong
)
_SUSPECT_ESCAPE: Final = re.compile(rf"%(?!{_PLAIN_ESCAPE})")
_ESCAPES: Final = (
    (re.compile(r"%5[cC]"), "a backslash"),
    (re.compile(r"%2[fF]"), "an encoded `/`"),
    (re.compile(r"%3[bB]"), "path parameters (`;`)"),
    (re.compile(r"%23|%3[fF]"), "`#`, or an encoded `#` or `?`"),
    (re.compile(r"%25"), "an encoded `%`, which may hide another encoding"),
    (re.compile(r"%(?![0-9A-Fa-f]{2})"), "`%` without two hex digits"),
    (re.compile(r"%(?:[01]|7[fF])"), "a control character or blank"),
    (re.compile(r"%[c-fC-F]"), "an overlong UTF-8 encoding"),
    # RFC 3986 section 6.2.2.2: the others mean the same decoded, so one party decodes them and another does not.
    (re.compile(r"%"), "an encoded character that needs no encoding"),
)


_COMMON_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]+")  # RFC 9110 section 5.6.2, token, without lower-case letters


def plain_method(method: str) -> bool:
    """Whether the method is a token without lower-case letters.

    Methods are case-sensitive (RFC 9110 section 9.1), and all registered ones are in upper case. Envoy forwards
    `delete` over HTTP/2 to applications that treat it as `DELETE`, but rules on `DELETE` do not match it.
    """
    return method in _COMMON_METHODS or _METHOD.fullmatch(method) is not None


_AUTHORITY: Final = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def plain_authority(host: str) -> bool:
    """Whether the host is a name or an IPv4 or bracketed IPv6 address, with or without a port, or is absent.

    Servers read user info, percent-encoding, a port that is not a number and the like differently, so that these could
    evade a rule on a host.
    """
    return not host or _AUTHORITY.fullmatch(host) is not None


def path_ambiguity(path: str, method: str) -> str:
    """Describe what is ambiguous about `path` (as received, without its query), "" if nothing is.

    CONNECT has no path; with other methods an empty path is ambiguous.
    """
    if _PLAIN.fullmatch(path):
        return ""
    if not path:
        return "" if method == "CONNECT" else "the path is empty"
    for pattern, problem in _SUSPECTS:
        if pattern.search(path):
            return f"the path has {problem}" if not problem.startswith("it ") else problem
    escape = _SUSPECT_ESCAPE.search(path)
    if escape is None:
        return ""
    return "the path has " + next(problem for pattern, problem in _ESCAPES if pattern.match(path, escape.start()))


def request_ambiguity(inputs: Inputs) -> tuple[Reason, str] | None:
    """Why no rule is evaluated: the request is ambiguous or too costly to match. None if it is neither."""
    request = inputs.request
    if inputs.strict and not plain_authority(request.host):
        return Reason.HOST_AMBIGUOUS, "not a name with a port"
    if inputs.strict and not plain_method(request.method):
        lower = plain_method(request.method.upper())
        return Reason.METHOD_AMBIGUOUS, "the method has a lower-case letter" if lower else "the method is not a token"
    path = request.path.partition("?")[0]
    if inputs.strict and len(path) > MAX_PATH_CHARACTERS:
        return Reason.PATH_TOO_LONG, f"{len(path)} characters, more than {MAX_PATH_CHARACTERS}"
    if not inputs.options.accept_ambiguous_paths:
        problem = path_ambiguity(path, request.method)
        if problem:
            return Reason.PATH_AMBIGUOUS, problem
    return None
