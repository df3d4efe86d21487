"""The settings that change what the core decides, as one frozen value; built by `settings`, read by the core."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Semantics(StrEnum):
    """Which reading of Istio's documents decides: our safe one, or exactly Envoy's."""

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
    """Whose requests are decided; selectors are matched against it."""

    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedWorkload:
    """A workload that a proxy with SPIFFE ID `principal` stands before."""

    principal: str
    workload: Workload


@dataclass(frozen=True, slots=True)
class Gateway:
    """A proxy that stands before several workloads: `caller` is its SPIFFE ID, or `unix` for a Unix socket's users.

    `namespaces` are those it may name: exact, `x*`, `*x` or `*`.
    """

    caller: str
    namespaces: tuple[str, ...]


UNIX_CALLER: Final = "unix"


@dataclass(frozen=True, slots=True)
class DocumentScope:
    """Which namespaces and files may hold documents that count for every workload; None: any.

    `paths` are files or directories, without `/` at the end. `chosen`: False where the operator did not say.
    """

    namespaces: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    chosen: bool = True


@dataclass(frozen=True, slots=True)
class Options:
    """How documents are read and requests decided.

    `default_allow`: a request that no policy speaks of is allowed, if no ALLOW policy selects the workload.
    `accept_ambiguous_paths`: paths that two parties may read differently are matched as they are.
    `bundles_from_elsewhere`: trust bundles come from the settings' sources too, whether or not they are there yet.
    `root_documents`: who may say what counts for every workload.
    `workloads` and `gateways`: where one of them is given, each request says whose it is, else it is `workload`'s.
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
    root_documents: DocumentScope = field(default=DocumentScope(), repr=False, compare=False)
    shared: bool = field(init=False, repr=False, compare=False)
    """True where requests say whose they are."""
    strict: bool = field(init=False, repr=False, compare=False)
    """True in the safe reading."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared", bool(self.workloads or self.gateways))
        object.__setattr__(self, "strict", self.semantics is Semantics.STRICT)

    @classmethod
    def istio(cls, workload: Workload | None = None) -> Options:
        """Exactly what an Istio sidecar's Envoy would decide."""
        return cls(
            semantics=Semantics.ISTIO,
            default_allow=True,
            workload=workload or Workload(),
            trust_proxy=True,
            accept_ambiguous_paths=True,
        )
