"""Reads and checks the SPIFFE Workload API's messages. Only this module uses their protobuf types.

A message that can't be read or lacks required fields raises `MalformedMessage` and changes nothing (SPIFFE Workload
API, section 4.5). Each bundle of a map is checked separately, so a partner's malformed bundle does not keep the others
from rotating.
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


class MalformedMessage(ZtaError):
    """A message that must not be used. Its text contains no data from the message."""


@dataclass(frozen=True, slots=True)
class DomainMap(Generic[T]):
    """The bundles in a message by trust domain: `accepted` ones, and the names of `malformed` ones.

    A trust domain in neither must not be trusted any more (section 4.4). `faults` describes the malformed bundles.
    """

    accepted: dict[str, T] = field(default_factory=dict)
    malformed: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class JwtAuthorities:
    """The keys that sign a trust domain's JWT-SVIDs, and the SHA-256 of their text."""

    digest: bytes
    keys: KeySet


def read_svid_response(payload: bytes) -> OwnSvid:
    """Read the default SVID, which is the first (section 5.3). Raises `MalformedMessage`."""
    try:
        message = workload_pb2.X509SVIDResponse.FromString(payload)
    except DecodeError:
        raise MalformedMessage("not an X509SVIDResponse") from None
    if not message.svids:
        raise MalformedMessage("a response without SVIDs")
    first = message.svids[0]
    try:
        return read_own_svid(first.spiffe_id, first.x509_svid, first.x509_svid_key)
    except ValueError as error:
        raise MalformedMessage(f"an invalid SVID: {error}") from None


def read_x509_bundles(payload: bytes) -> DomainMap[tuple[Certificate, ...]]:
    """Read the X.509 authorities of each trust domain. Raises `MalformedMessage`."""
    try:
        message = workload_pb2.X509BundlesResponse.FromString(payload)
    except DecodeError:
        raise MalformedMessage("not an X509BundlesResponse") from None
    return _by_domain(message.bundles, _certificates)


def read_jwt_bundles(payload: bytes) -> DomainMap[JwtAuthorities]:
    """Read the keys that sign each trust domain's JWT-SVIDs. Raises `MalformedMessage`."""
    try:
        message = workload_pb2.JWTBundlesResponse.FromString(payload)
    except DecodeError:
        raise MalformedMessage("not a JWTBundlesResponse") from None
    return _by_domain(message.bundles, _key_set)


def _by_domain(entries: Mapping[str, bytes], read: Callable[[bytes], T]) -> DomainMap[T]:
    if not entries:
        raise MalformedMessage("a response without bundles")
    if len(entries) > MAX_TRUST_DOMAINS:
        raise MalformedMessage(f"more than {MAX_TRUST_DOMAINS} trust domains")
    domains: DomainMap[T] = DomainMap()
    for key, value in entries.items():
        try:
            domain = TrustDomain.parse(key.removeprefix(SCHEME))
        except ValueError:
            domains.faults.append("a bundle's key is not the SPIFFE ID of a trust domain")
            continue
        try:
            domains.accepted[domain.name] = read(value)
        except ValueError as error:
            domains.malformed.add(domain.name)
            domains.faults.append(f"the bundle of `{domain}`: {error}")
    if not domains.accepted:
        raise MalformedMessage("; ".join(domains.faults[:3]))
    return domains


def _certificates(der: bytes) -> tuple[Certificate, ...]:
    certificates, faults = read_der_authorities(der, "it")
    if faults:
        raise ValueError("; ".join(fault.message for fault in faults[:3]))
    return certificates


def _key_set(text: bytes) -> JwtAuthorities:
    keys, faults = read_jwks(json_object(text), uses=JWT_SVID_USES)
    if faults:
        raise ValueError("; ".join(faults[:3]))
    return JwtAuthorities(hashlib.sha256(text).digest(), keys)
