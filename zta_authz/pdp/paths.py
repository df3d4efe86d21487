"""Paths, hosts and methods that two parties may read differently: refused before any rule is asked.

An operator may accept such paths (`paths.ambiguous`).

A rule that names `/admin` must not be evaded by a spelling that the upstream reads as `/admin` and the rule does not.
"""

from __future__ import annotations

import re
from typing import Final

# A path that is plainly unambiguous is by far the common case: one scan, linear in its length, tells.
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_~!$&'()*+,:@=-][A-Za-z0-9_~!$&'()*+,:@=.-]*)+/?|/")

MAX_PATH_CHARACTERS: Final = 8192
"""The longest path, without its query, that the strict reading judges. Most servers take no longer request line."""

# What is not an escape, in the order in which it is named to the operator.
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
# Escapes are looked at in one pass, because a path may hold thousands. These are the ones that only one reading takes.
_PLAIN_ESCAPE: Final = (
    r"2[0-246-9A-Ca-c]|3[ACDEacde]|40|5[BDEbde]|60|7[B-Db-d]"  # RFC 3986: characters that may need an encoding
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
    # RFC 3986 section 6.2.2.2: what is left means the same decoded, so one reader decodes it and another does not.
    (re.compile(r"%"), "an encoded character that needs no encoding"),
)


_USUAL_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]+")  # RFC 9110 section 5.6.2, token, without lower-case letters


def plain_method(method: str) -> bool:
    """True for a token without lower-case letters.

    Methods are case-sensitive (RFC 9110 section 9.1) and all that are registered are in upper case. HTTP/2 carries
    `delete` through Envoy to applications that take it for `DELETE`, and no rule on `DELETE` sees it.
    """
    return method in _USUAL_METHODS or _METHOD.fullmatch(method) is not None


_AUTHORITY: Final = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def plain_authority(host: str) -> bool:
    """True for a name, an IPv4 or bracketed IPv6 address, with a port or without, and where there is no authority.

    User info, percent-encoding, a port that is no number and the like are read differently by different servers, so
    that a rule that names a host could be evaded by them.
    """
    return not host or _AUTHORITY.fullmatch(host) is not None


def ambiguous(path: str, method: str) -> str:
    """What is ambiguous about `path` (as it came, without its query), "" where nothing is.

    CONNECT has no path; an empty path anywhere else is ambiguous.
    """
    if _PLAIN.fullmatch(path):
        return ""
    if not path:
        return "" if method == "CONNECT" else "the path is empty"
    for pattern, what in _SUSPECTS:
        if pattern.search(path):
            return f"the path has {what}" if not what.startswith("it ") else what
    escape = _SUSPECT_ESCAPE.search(path)
    if escape is None:
        return ""
    return "the path has " + next(what for pattern, what in _ESCAPES if pattern.match(path, escape.start()))
