"""Distinguish documents of other applications, which are skipped, from misspelled policies, which are faults.

A policy set may contain other documents of an application: Services, Gateways, PeerAuthentication, or its own values in
a ConfigMap. They are skipped with a note. A document with an API group of zta-authz or of Istio security, or with a
kind or group that is spelled nearly like a known one, is a fault, so that no policy is silently ignored.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple

from zta_authz.policy.documents.spec import ISTIO_VERSIONS, ZTA_VERSION
from zta_authz.policy.yaml.nodes import Mapping, Scalar

if TYPE_CHECKING:
    from collections.abc import Collection

    from zta_authz.policy.yaml.nodes import Node

_ZTA: Final = ZTA_VERSION.rpartition("/")[0]
_SECURITY: Final = ISTIO_VERSIONS[0].rpartition("/")[0]
_GROUPS: Final = (_SECURITY, _ZTA)
_RETIRED: Final = ("rbac.istio.io", "authentication.istio.io")
_SKIPPED: Final = {
    (
        _SECURITY,
        "PeerAuthentication",
    ): "Istio enforces it in the proxies; this service reads the setting `peer`",
    (_ZTA, "PolicyTest"): "`zta-authz test` reads it",
}
_SUFFIXES: Final = (".yaml", ".yml", ".json")
_HEADINGS: Final = ("apiVersion", "kind", "metadata", "spec", "selector", "rules", "action")
_MAX_FIELDS: Final = 64
_NEAR: Final = 0.8
"""Similarity from 0 to 1 (`difflib`) from which a name counts as a misspelling of another."""


class HeadingFault(NamedTuple):
    """A fault of a document's heading: the field at fault, a message and a hint."""

    field: str
    message: str
    hint: str


def check_unknown_kind(version: str, kind: str, known: Collection[tuple[str, str]]) -> HeadingFault | str:
    """Check a kind that is not in `known` (apiVersion, kind): a fault, or the reason to skip the document."""
    group = version.rpartition("/")[0]
    reason = _SKIPPED.get((group, kind))
    if reason is not None:
        return reason
    versions = [known_version for known_version, name in known if name == kind]
    if versions:
        elsewhere = "" if group in _GROUPS else ", or keep the document elsewhere if it is not for this service"
        hint = f"write `{versions[0]}`{elsewhere}"
        return HeadingFault("apiVersion", f"unknown apiVersion `{version}` for {kind}", hint)
    message = f"unknown kind `{kind}` (apiVersion `{version}`)"
    if group in _RETIRED:
        return HeadingFault("kind", message, "Istio removed it in 1.6: write an AuthorizationPolicy")
    kinds = sorted({name for _, name in known})
    near = _near(kind, kinds)
    if near or group in _GROUPS:
        hint = f"did you mean `{near}`?" if near else f"known kinds: {', '.join(kinds)}"
        return HeadingFault("kind", message, hint)
    near_group = _near(group, _GROUPS)
    if near_group:
        return HeadingFault("apiVersion", f"unknown API group `{group}`", f"did you mean `{near_group}`?")
    return "it is not a policy of this service or of Istio's security"


def is_foreign(node: Node) -> bool:
    """Whether a ConfigMap value belongs to an application: plain text, or fields unlike those of any document."""
    if isinstance(node, Scalar):
        return node.kind != "null" and not may_hold_documents("", node.value)
    if not isinstance(node, Mapping) or len(node.entries) > _MAX_FIELDS:
        return False
    return not any(_near(key, _HEADINGS) for key in node.entries)


def may_hold_documents(key: str, text: str) -> bool:
    """Whether a ConfigMap value that is not valid YAML may contain documents, judged by its key and text."""
    return key.lower().endswith(_SUFFIXES) or any(field.lower() in text.lower() for field in _HEADINGS[:2])


def _near(word: str, words: Collection[str]) -> str:
    """The closest of `words` to `word`, ignoring case; "" if none is close."""
    by_lower = {candidate.lower(): candidate for candidate in words}
    matches = get_close_matches(word.lower()[:100], by_lower, 1, _NEAR)
    return by_lower[matches[0]] if matches else ""
