"""The settings that influence decisions, as one frozen value. `settings` builds it, the core reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Semantics(StrEnum):
    """How Istio's documents are interpreted: strictly, the safe way, or exactly as Envoy does."""

    STRICT = "strict"
    ISTIO = "istio"


class CertificateCheck(StrEnum):
    """Whether the chain of `source.certificate` is verified here."""

    REQUIRED = "required"
    WHEN_PRESENT = "when_present"
    NEVER = "never"


class ChainSource(StrEnum):
    """Where intermediates of a peer's chain may come from."""

    CERTIFICATE = "certificate"
    BUNDLE = "bundle"
    XFCC = "xfcc"


_NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Workload:
    """The workload that requests go to; selectors are matched against it."""

    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedWorkload:
    """A workload, and the SPIFFE ID `principal` of the proxy in front of it."""

    principal: str
    workload: Workload


@dataclass(frozen=True, slots=True)
class Gateway:
    """A proxy in front of several workloads: `caller` is its SPIFFE ID, or `unix` for users of the Unix socket.

    It may name workloads in `namespaces`: exact, `x*`, `*x` or `*`.
    """

    caller: str
    namespaces: tuple[str, ...]


UNIX_CALLER: Final = "unix"
ADMINISTRATOR_APPS: Final = ("zta-admin", "zta-token")
"""The label `app` of the workloads that the administrator decides for. They are in the root namespace."""


@dataclass(frozen=True, slots=True)
class DocumentScope:
    """The namespaces and files that may contain documents for every workload; None allows any.

    `paths` are files or directories, without a trailing `/`. `chosen` is False if the operator set neither.
    """

    namespaces: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    chosen: bool = True


@dataclass(frozen=True, slots=True)
class Options:
    """How documents are interpreted and requests decided.

    `default_allow`: allow a request that no rule matches, if no ALLOW policy selects the workload.
    `accept_ambiguous_paths`: match paths that two parties may read differently as they are.
    `bundles_from_elsewhere`: the settings' sources supply trust bundles too, loaded already or not.
    `root_documents`: where documents for every workload may come from.
    `document_namespace`: the namespace of documents that name none; "" is that of `workload`.
    `allow_by_selector`: ALLOW policies without a selector allow nothing.
    `token_issuer`: the issuer of the tokens minted here, whose tokens are refused; "" if none are minted.
    `workloads` and `gateways`: if either is set, the workload depends on the request; else it is `workload`.
    """

    semantics: Semantics = Semantics.STRICT
    default_allow: bool = False
    workload: Workload = Workload()
    root_namespace: str = "istio-system"
    verify_certificate: CertificateCheck = CertificateCheck.WHEN_PRESENT
    trust_proxy: bool = False
    chain_from: tuple[ChainSource, ...] = (ChainSource.CERTIFICATE, ChainSource.BUNDLE)
    use_remote_address: bool = False
    xff_num_trusted_hops: int = 0
    accept_ambiguous_paths: bool = False
    workloads: tuple[NamedWorkload, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    bundles_from_elsewhere: bool = False
    document_namespace: str = ""
    allow_by_selector: bool = False
    root_documents: DocumentScope = field(default=DocumentScope(), repr=False, compare=False)
    token_issuer: str = ""
    shared: bool = field(init=False, repr=False, compare=False)
    """True if the workload depends on the request."""
    strict: bool = field(init=False, repr=False, compare=False)
    """True with strict semantics."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared", bool(self.workloads or self.gateways))
        object.__setattr__(self, "strict", self.semantics is Semantics.STRICT)

    @classmethod
    def istio(cls, workload: Workload | None = None) -> Options:
        """Options to decide exactly as the Envoy of an Istio sidecar does."""
        return cls(
            semantics=Semantics.ISTIO,
            default_allow=True,
            workload=workload or Workload(),
            trust_proxy=True,
            accept_ambiguous_paths=True,
        )
