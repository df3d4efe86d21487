"""What answers are judged by, written apart from the service: its own readings of rules, answers and spellings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.fuzz import material
from tests.property import reference_evaluator
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.errors import Reason
from zta_authz.model.identity import PeerTrust

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.model.decision import Decision
    from zta_authz.model.request import RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot

_BY_RULES = (
    Reason.ALLOW_POLICY, Reason.ALLOW_DEFAULT, Reason.DENY_POLICY, Reason.NO_MATCHING_POLICY, Reason.STEP_UP_REQUIRED,
    Reason.TRUST_TOO_LOW,
)  # fmt: skip
_SEGMENTS_DROPPED = ("", ".")


def read_answer(payload: bytes, request: RequestAttributes | None) -> bool:
    """Whether an answer allows. It must say so or otherwise in so many words, and let none of our headers through."""
    answer = CheckResponse.FromString(payload)
    assert answer.HasField("status"), "Envoy reads an absent status as OK"
    which = answer.WhichOneof("http_response")
    if answer.status.code != 0:
        assert which == "denied_response"
        assert 400 <= answer.denied_response.status.code <= 599
        return False
    assert which == "ok_response"
    assert request is not None
    handled = {option.header.key for option in answer.ok_response.headers} | set(answer.ok_response.headers_to_remove)
    ours = [
        header for header in request.headers.names() if re.sub("[^a-z0-9]", "-", header.lower()).startswith("x-zta-")
    ]
    sendable = [
        header
        for header in ours
        if header.isascii() and header.isprintable() and not set(header) & set(' "(),/:;<=>?@[\\]{}')
    ]
    assert set(sendable) <= handled, "a header of ours passes in from the client"
    return True


def agrees_with_reference(
    documents: Sequence[dict[str, Any]], snapshot: Snapshot, request: RequestAttributes, decision: Decision
) -> None:
    """A decision that rules made equals the decision of the reference evaluator."""
    if decision.reason not in _BY_RULES:
        assert not decision.allowed
        return
    verdict, place = reference_evaluator.decide(
        documents, reference_evaluator.Case(request, decision.identity, snapshot.options)
    )
    if decision.allowed or len(decision.identity.tokens) < 2:  # of several tokens, each may be denied for
        found = (decision.policy, decision.rule) if decision.policy else None
        assert (str(decision.verdict), found) == (verdict, place)


def identity_is_original(decision: Decision, claims: Sequence[dict[str, Any]], certificates: dict[bytes, str]) -> None:
    """Nobody is authenticated by anything but the tokens and certificates that were made.

    `certificates` are names by SHA-256 of the DER.
    """
    identity = decision.identity
    for token in identity.tokens:
        assert dict(token.claims) in claims
    peer = identity.peer
    if peer is not None and peer.trust is PeerTrust.CERTIFICATE:
        assert peer.certificate_sha256 in certificates
        assert certificates[peer.certificate_sha256] == peer.principal
        assert len(peer.names) == 1


def known_claims() -> list[dict[str, Any]]:
    """The claims of every token that is made for fuzzing."""
    return [material.CLAIMS, material.CLAIMS | {"cnf": {"jkt": material.thumbprint("holder")}}]


# --- how upstreams read a path ---


def _decoded(path: str) -> str:
    out, rest = bytearray(), path.encode("utf-8", "surrogatepass")
    while rest:
        octet = rest[1:3]
        if rest[:1] == b"%" and len(octet) == 2 and all(chr(digit) in "0123456789abcdefABCDEF" for digit in octet):
            out.append(int(octet, 16))
            rest = rest[3:]
        else:
            out += rest[:1]
            rest = rest[1:]
    return out.decode("utf-8", "surrogateescape")


def _without_dots(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in _SEGMENTS_DROPPED:
            kept.append(segment)
    tail = "/" if kept and segments[-1] in ("", ".", "..") else ""
    return "/" + "/".join(kept) + tail


def _one_slash(path: str) -> str:
    while "//" in path:
        path = path.replace("//", "/")
    return path


def _without_parameters(path: str) -> str:
    return "/".join(segment.partition(";")[0] for segment in path.split("/"))


READERS: tuple[Callable[[str], str], ...] = (
    _decoded,
    _without_dots,
    _one_slash,
    _without_parameters,
    lambda path: path.replace("\\", "/"),
    lambda path: path.partition("?")[0].partition("#")[0],
    lambda path: path.partition("\x00")[0],
    lambda path: path.strip(" \t\r\n"),
    lambda path: path if path.startswith("/") else "/" + path,
    lambda path: path.encode("utf-8", "surrogatepass").decode("latin-1"),
)
"""What common servers and frameworks make of a path, each step alone; they are put together in any order."""


def spellings(
    text: str, readers: Sequence[Callable[[str], str]] = READERS, rounds: int = 3, limit: int = 200
) -> set[str]:
    """All that up to `rounds` steps of `readers` make of `text`, itself included."""
    found, last = {text}, {text}
    for _ in range(rounds):
        last = {reader(each) for each in last for reader in readers} - found
        found |= last
        if len(found) > limit:
            break
    return found


def _without_port(host: str) -> str:
    head, colon, port = host.rpartition(":")
    return head if colon and (not port or port.isdigit()) and not head.endswith(":") else host


HOST_READERS: tuple[Callable[[str], str], ...] = (
    str.lower,
    _without_port,
    lambda host: host.rstrip("."),
    lambda host: host.strip(),
    lambda host: host.rpartition("@")[2],
    _decoded,
    lambda host: host.partition(",")[0],
    lambda host: host.partition("/")[0],
    lambda host: host.partition("\x00")[0],
)
"""What servers make of an authority before they look a virtual host up."""
