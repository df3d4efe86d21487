"""Kinds that are not read: those that are others' business, and those that are misspelt.

A policy set may hold what else belongs to an application (Services, Gateways, PeerAuthentication, its own values in a
ConfigMap): it is left to whoever reads it. But what was meant to be enforced here must never be passed over: a document
that has an API group of ours or of Istio's security, or a kind or group that is nearly one, stays a fault.
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
_LEFT: Final = {
    (_SECURITY, "PeerAuthentication"): "Istio enforces it in the proxies; what is believed of a peer is in `peer`",
    (_ZTA, "PolicyTest"): "`zta-authz test` reads it",
}
_SUFFIXES: Final = (".yaml", ".yml", ".json")
_HEADINGS: Final = ("apiVersion", "kind", "metadata", "spec", "selector", "rules", "action")
_MAX_FIELDS: Final = 64
_NEAR: Final = 0.8
"""How alike two names are, from 0 to 1, for one to be taken for the other misspelt (`difflib`)."""


class Wrong(NamedTuple):
    """What is wrong with a heading: the field to blame, what it is and what to write instead."""

    field: str
    message: str
    hint: str


def judge(version: str, kind: str, known: Collection[tuple[str, str]]) -> Wrong | str:
    """What is wrong with a document of a kind that is not among the `known` (apiVersion, kind); else why it is left."""
    group = version.rpartition("/")[0]
    left = _LEFT.get((group, kind))
    if left is not None:
        return left
    versions = [each for each, name in known if name == kind]
    if versions:
        elsewhere = "" if group in _GROUPS else ", or keep the document elsewhere if it is not for this service"
        hint = f"write `{versions[0]}`{elsewhere}"
        return Wrong("apiVersion", f"unknown apiVersion `{version}` for {kind}", hint)
    message = f"unknown kind `{kind}` (apiVersion `{version}`)"
    if group in _RETIRED:
        return Wrong("kind", message, "Istio reads it no longer, since 1.6: write an AuthorizationPolicy")
    kinds = sorted({name for _, name in known})
    near = _near(kind, kinds)
    if near or group in _GROUPS:
        hint = f"did you mean `{near}`?" if near else f"known kinds: {', '.join(kinds)}"
        return Wrong("kind", message, hint)
    nearly = _near(group, _GROUPS)
    if nearly:
        return Wrong("apiVersion", f"unknown API group `{group}`", f"did you mean `{nearly}`?")
    return "it is not a policy of this service or of Istio's security"


def is_foreign(node: Node) -> bool:
    """Whether a value of a ConfigMap is an application's own: a text, or fields that no document has, or nearly has."""
    if isinstance(node, Scalar):
        return node.kind != "null" and not may_hold_documents("", node.value)
    if not isinstance(node, Mapping) or len(node.entries) > _MAX_FIELDS:
        return False
    return not any(_near(key, _HEADINGS) for key in node.entries)


def may_hold_documents(key: str, text: str) -> bool:
    """Whether a value of a ConfigMap that is no YAML was meant to hold documents, by its key or by what it says."""
    return key.lower().endswith(_SUFFIXES) or any(field.lower() in text.lower() for field in _HEADINGS[:2])


def _near(word: str, words: Collection[str]) -> str:
    """The one of `words` that `word` nearly is, whatever the case; "" for none."""
    by_lower = {each.lower(): each for each in words}
    found = get_close_matches(word.lower()[:100], by_lower, 1, _NEAR)
    return by_lower[found[0]] if found else ""
