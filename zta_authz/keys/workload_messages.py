"""The SPIFFE Workload API's messages: bytes to what they hold, judged. The only reader of their protobuf types here.

A message that can't be read, or lacks what it must have, raises `Malformed` and changes nothing (SPIFFE Workload API,
section 4.5). Of a map of bundles each is judged by itself: a partner's garbled bundle must not keep ours from rotating.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from google.protobuf.message import DecodeError

from zta_authz._proto import workload_pb2
from zta_authz.authn.bundle_formats import JWT_SVID_USES, read_der_authorities
from zta_authz.authn.encoding import json_object
from zta_authz.authn.keys import KeySet, read_jwks
from zta_authz.authn.own_svid import OwnSvid, read_own_svid
from zta_authz.errors import ZtaError
from zta_authz.model.spiffe import SCHEME, TrustDomain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.x509 import Certificate

MAX_TRUST_DOMAINS: Final = 1000
T = TypeVar("T")


class Malformed(ZtaError):
    """What must not be taken; says why without anything of what was sent."""


@dataclass(frozen=True, slots=True)
class DomainMap(Generic[T]):
    """What a message says of each trust domain: `taken` by name; `garbled` are named but what they have is no good.

    A trust domain that is in neither is not to be trusted any more (section 4.4). `wrong` tells of what is garbled.
    """

    taken: dict[str, T] = field(default_factory=dict)
    garbled: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class JwtAuthorities:
    """The keys that sign a trust domain's JWT-SVIDs, and the SHA-256 of the text that they were read from."""

    digest: bytes
    keys: KeySet


def read_svid_response(payload: bytes) -> OwnSvid:
    """Our default SVID, which is the first (section 5.3). Raises `Malformed`."""
    try:
        message = workload_pb2.X509SVIDResponse.FromString(payload)
    except DecodeError:
        raise Malformed("not an X509SVIDResponse") from None
    if not message.svids:
        raise Malformed("a response without SVIDs")
    first = message.svids[0]
    try:
        return read_own_svid(first.spiffe_id, first.x509_svid, first.x509_svid_key)
    except ValueError as error:
        raise Malformed(f"an SVID that is no good: {error}") from None


def read_x509_bundles(payload: bytes) -> DomainMap[tuple[Certificate, ...]]:
    """The X.509 authorities of each trust domain. Raises `Malformed`."""
    try:
        message = workload_pb2.X509BundlesResponse.FromString(payload)
    except DecodeError:
        raise Malformed("not an X509BundlesResponse") from None
    return _by_domain(message.bundles, _certificates)


def read_jwt_bundles(payload: bytes) -> DomainMap[JwtAuthorities]:
    """The keys that sign each trust domain's JWT-SVIDs. Raises `Malformed`."""
    try:
        message = workload_pb2.JWTBundlesResponse.FromString(payload)
    except DecodeError:
        raise Malformed("not a JWTBundlesResponse") from None
    return _by_domain(message.bundles, _key_set)


def _by_domain(entries: Mapping[str, bytes], read: Callable[[bytes], T]) -> DomainMap[T]:
    if not entries:
        raise Malformed("a response without bundles")
    if len(entries) > MAX_TRUST_DOMAINS:
        raise Malformed(f"more than {MAX_TRUST_DOMAINS} trust domains")
    found: DomainMap[T] = DomainMap()
    for key, value in entries.items():
        try:
            domain = TrustDomain.parse(key.removeprefix(SCHEME))
        except ValueError:
            found.wrong.append("a bundle under what is no trust domain's SPIFFE ID")
            continue
        try:
            found.taken[domain.name] = read(value)
        except ValueError as error:
            found.garbled.add(domain.name)
            found.wrong.append(f"the bundle of `{domain}`: {error}")
    if not found.taken:
        raise Malformed("; ".join(found.wrong[:3]))
    return found


def _certificates(der: bytes) -> tuple[Certificate, ...]:
    certificates, wrong = read_der_authorities(der, "it")
    if wrong:
        raise ValueError("; ".join(each.message for each in wrong[:3]))
    return certificates


def _key_set(text: bytes) -> JwtAuthorities:
    keys, wrong = read_jwks(json_object(text), uses=JWT_SVID_USES)
    if wrong:
        raise ValueError("; ".join(wrong[:3]))
    return JwtAuthorities(hashlib.sha256(text).digest(), keys)
