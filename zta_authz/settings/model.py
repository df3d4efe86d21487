"""The fields of the settings, their defaults, and the checks of single fields."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from zta_authz.grpc_h2.bounds import MAX_FRAME_BYTES, MIB, MIN_FRAME_BYTES, MIN_TABLE_BYTES, Bounds
from zta_authz.model.options import (
    CertificateCheck,
    ChainSource,
    Gateway,
    NamedWorkload,
    Options,
    Semantics,
    Workload,
)
from zta_authz.servers.fast.registry import Limits
from zta_authz.servers.listeners import MAX_CONNECTION_AGE_SECONDS, Endpoint, SocketAccess
from zta_authz.settings.administrator_model import AdministratorSettings
from zta_authz.settings.audit_model import AuditSettings
from zta_authz.settings.field_types import (
    Address,
    AgeSeconds,
    Caller,
    FileMode,
    GroupName,
    HostName,
    HttpsUrl,
    LongSeconds,
    Seconds,
    SpiffeIds,
    SpiffeIdText,
    TcpAddress,
    TrustDomainName,
    UnixAddress,
)
from zta_authz.settings.minting_model import MintingSettings
from zta_authz.settings.networks_model import FactsSettings, NetworksSettings
from zta_authz.settings.otlp_model import MetricsSettings, TracingSettings
from zta_authz.settings.root_documents_model import RootDocumentsSettings
from zta_authz.settings.values import PositiveSeconds, Section, Text, distinct


class WorkloadSettings(Section):
    """The workload whose requests are authorized; policy selectors match it."""

    namespace: Text = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    trust_domain: TrustDomainName = "cluster.local"
    trust_domain_aliases: Annotated[tuple[TrustDomainName, ...], AfterValidator(distinct)] = ()


class NamedWorkloadSettings(Section):
    """One of several workloads of a shared authorizer: its proxy's SPIFFE ID, its namespace and labels."""

    principal: SpiffeIdText
    namespace: Text
    labels: dict[str, str] = Field(default_factory=dict)


class GatewaySettings(Section):
    """A proxy in front of several workloads: its SPIFFE ID (or `unix`), and the namespaces that it may name."""

    spiffe_id: Caller
    namespaces: Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(distinct)]


class PeerSettings(Section):
    """How the peer's identity is verified. `trust_proxy` unset: false in strict, true in Istio semantics."""

    verify_certificate: CertificateCheck = CertificateCheck.WHEN_PRESENT
    trust_proxy: bool | None = None
    chain_from: tuple[ChainSource, ...] = (ChainSource.CERTIFICATE, ChainSource.BUNDLE)


class ClientAddressSettings(Section):
    """How the client's address is determined, as in Envoy's connection manager."""

    use_remote_address: bool = False
    xff_num_trusted_hops: Annotated[int, Field(ge=0, le=100)] = 0


class PathsSettings(Section):
    """Paths that two parties may interpret differently. Unset: reject in strict, accept in Istio semantics."""

    ambiguous: Literal["reject", "accept"] | None = None


class HealthSettings(Section):
    """The HTTP listener for the kubelet and Prometheus; null turns it off."""

    listen: TcpAddress | None = "0.0.0.0:9192"


class AdminSettings(Section):
    """The admin API's listener (off by default), and who may use it over TCP."""

    listen: Address | None = None
    allowed_spiffe_ids: SpiffeIds = ()


class JwksSettings(Section):
    """How issuers' keys are fetched, and how long they are valid. `private_hosts` may have private addresses."""

    allow_http: bool = False
    allow_private_addresses: bool = False
    private_hosts: Annotated[tuple[HostName, ...], Field(max_length=1024), AfterValidator(distinct)] = ()
    ca_file: Text | None = None
    refresh_seconds: LongSeconds = 300.0
    min_refresh_seconds: LongSeconds = 10.0
    max_refresh_seconds: LongSeconds = 24 * 3600.0
    max_stale_seconds: Annotated[float, Field(ge=0, le=7 * 24 * 3600, allow_inf_nan=False)] = 3600.0
    unknown_kid_seconds: LongSeconds = 30.0


class SocketSettings(Section):
    """Mode and group of the Unix sockets that the service creates, and the users that may call on those of `listen`.

    If no user is listed, all may.
    """

    mode: FileMode = "0660"
    group: GroupName | None = None
    peer_uids: Annotated[tuple[Annotated[int, Field(ge=0, le=2**32 - 2)], ...], Field(max_length=64)] = ()


_BOUNDS: Final = Bounds()
_LIMITS: Final = Limits()
_SHARED_LIMITS: Final = {field.name for field in fields(Limits)}
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1024, le=1024 * 1024 * 1024)]


class Http2Settings(Section):
    """Limits of the fast server for all connections together and for each. `*_bytes` are bytes, `*_seconds` seconds."""

    max_connections: Count = _LIMITS.max_connections
    max_handshakes: Count = _LIMITS.max_handshakes
    handshake_seconds: PositiveSeconds = _LIMITS.handshake_seconds
    max_strangers: Count = _LIMITS.max_strangers
    stranger_seconds: PositiveSeconds = _LIMITS.stranger_seconds
    max_held_bytes: Annotated[int, Field(ge=MIB, le=1024 * 1024 * MIB)] = _LIMITS.max_held_bytes
    max_concurrent_streams: Count = _BOUNDS.max_concurrent_streams
    max_header_list_bytes: Bytes = _BOUNDS.max_header_list_bytes
    max_header_block_bytes: Bytes = _BOUNDS.max_header_block_bytes
    max_continuation_frames: Count = _BOUNDS.max_continuation_frames
    header_table_bytes: Annotated[int, Field(ge=MIN_TABLE_BYTES, le=MIB)] = _BOUNDS.header_table_bytes
    max_frame_bytes: Annotated[int, Field(ge=MIN_FRAME_BYTES, le=MAX_FRAME_BYTES)] = _BOUNDS.max_frame_bytes
    max_message_bytes: Bytes = _BOUNDS.max_message_bytes
    max_buffered_bytes: Bytes = _BOUNDS.max_buffered_bytes
    max_unsent_bytes: Bytes = _BOUNDS.max_unsent_bytes
    receive_window_bytes: Annotated[int, Field(ge=65_535, le=1024 * MIB)] = _BOUNDS.receive_window_bytes
    interval_seconds: PositiveSeconds = _BOUNDS.interval_seconds
    max_resets: Count = _BOUNDS.max_resets
    max_settings: Count = _BOUNDS.max_settings
    max_pings: Count = _BOUNDS.max_pings
    max_window_updates: Count = _BOUNDS.max_window_updates
    max_empty_frames: Count = _BOUNDS.max_empty_frames
    max_other_frames: Count = _BOUNDS.max_other_frames
    preface_seconds: PositiveSeconds = _BOUNDS.preface_seconds
    request_seconds: PositiveSeconds = _BOUNDS.request_seconds
    stall_seconds: PositiveSeconds = _BOUNDS.stall_seconds
    idle_seconds: AgeSeconds = _BOUNDS.idle_seconds
    max_age_seconds: AgeSeconds = _BOUNDS.max_age_seconds

    def bounds(self) -> Bounds:
        """Return the limits of each connection. Raises ValueError if they contradict each other."""
        return Bounds(**self.model_dump(exclude=_SHARED_LIMITS))

    def limits(self) -> Limits:
        """Return the limits of all connections together."""
        return Limits(**self.model_dump(include=_SHARED_LIMITS))


class TlsSettings(Section):
    """Mutual TLS of TCP listeners: our certificate chain and key, the callers' authorities, and the allowed callers.

    A connection to `server: grpcio` is replaced at the age of `max_connection_age_seconds` (0: never). The three
    files belong to `source: files`; with `workload_api` the Workload API and the trust bundles provide their
    contents.
    """

    source: Literal["files", "workload_api"] = "files"
    cert_file: Text | None = None
    key_file: Text | None = None
    client_ca_file: Text | None = None
    allowed_spiffe_ids: SpiffeIds = ()
    max_connection_age_seconds: AgeSeconds = MAX_CONNECTION_AGE_SECONDS


class BundleSettings(Section):
    """The bundle of one trust domain, from `file` or the bundle endpoint `url`; with both, `file` is the initial one.

    With `endpoint_spiffe_id` the endpoint uses the profile https_spiffe. Without it, https_web; `ca_file` (PEM)
    adds authorities to those of the system.
    """

    trust_domain: TrustDomainName
    file: Text | None = None
    url: HttpsUrl | None = None
    endpoint_spiffe_id: SpiffeIdText | None = None
    ca_file: Text | None = None


class WorkloadApiSettings(Section):
    """The SPIFFE Workload API: an agent's socket (null: not used), and whether to use its trust bundles."""

    socket: UnixAddress | None = None
    bundles: bool = True


class ReloadSettings(Section):
    """Whether policy files are watched, how often they are polled, and how long a change must have settled."""

    enabled: bool = True
    poll_seconds: Annotated[float, Field(ge=0.05, le=3600, allow_inf_nan=False)] = 1.0
    debounce_seconds: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.2


class LogSettings(Section):
    """The service's own log on stderr (the decision log is `audit`)."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Settings(Section):
    """All settings. Times are seconds."""

    listen: Annotated[tuple[Address, ...], Field(min_length=1, max_length=64), AfterValidator(distinct)] = (
        "unix:/run/zta-authz/authz.sock",
    )
    policies: Annotated[tuple[Text, ...], Field(min_length=1, max_length=1024), AfterValidator(distinct)] = (
        "/etc/zta-authz/policies",
    )
    shadow_policies: Annotated[tuple[Text, ...], Field(max_length=1024), AfterValidator(distinct)] = ()
    reload: ReloadSettings = ReloadSettings()
    semantics: Semantics = Semantics.STRICT
    default_action: Literal["deny", "allow"] | None = None
    workload: WorkloadSettings = WorkloadSettings()
    workloads: Annotated[tuple[NamedWorkloadSettings, ...], Field(max_length=1024)] = ()
    gateways: Annotated[tuple[GatewaySettings, ...], Field(max_length=1024)] = ()
    root_namespace: Text = "istio-system"
    root_documents: RootDocumentsSettings = RootDocumentsSettings()
    peer: PeerSettings = PeerSettings()
    client_address: ClientAddressSettings = ClientAddressSettings()
    networks: NetworksSettings = NetworksSettings()
    facts: FactsSettings = FactsSettings()
    administrator: AdministratorSettings = AdministratorSettings()
    minting: MintingSettings = MintingSettings()
    paths: PathsSettings = PathsSettings()
    server: Literal["grpcio", "fast"] | None = None
    http2: Http2Settings = Http2Settings()
    audit: AuditSettings = AuditSettings()
    health: HealthSettings = HealthSettings()
    admin: AdminSettings = AdminSettings()
    jwks: JwksSettings = JwksSettings()
    bundles: Annotated[tuple[BundleSettings, ...], Field(max_length=1024)] = ()
    workload_api: WorkloadApiSettings = WorkloadApiSettings()
    socket: SocketSettings = SocketSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    metrics: MetricsSettings = MetricsSettings()
    tls: TlsSettings | None = None
    reflection: bool = False
    insecure: bool = False
    drain_seconds: Seconds = 10.0
    max_concurrent_checks: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    workers: Annotated[int, Field(ge=1, le=64)] = 1

    def options(self) -> Options:
        """Return the settings that affect decisions, with defaults according to `semantics`."""
        istio = self.semantics is Semantics.ISTIO
        trust_proxy = self.peer.trust_proxy
        return Options(
            semantics=self.semantics,
            default_allow=(self.default_action or ("allow" if istio else "deny")) == "allow",
            workload=self._workload(self.workload),
            workloads=tuple(NamedWorkload(named.principal, self._workload(named)) for named in self.workloads),
            gateways=tuple(Gateway(gateway.spiffe_id, gateway.namespaces) for gateway in self.gateways),
            root_namespace=self.root_namespace,
            root_documents=self.root_documents.scope(self.policies, self.root_namespace),
            verify_certificate=self.peer.verify_certificate,
            trust_proxy=istio if trust_proxy is None else trust_proxy,
            chain_from=self.peer.chain_from,
            use_remote_address=self.client_address.use_remote_address,
            xff_num_trusted_hops=self.client_address.xff_num_trusted_hops,
            accept_ambiguous_paths=(self.paths.ambiguous or ("accept" if istio else "reject")) == "accept",
            bundles_from_elsewhere=bool(self.bundles) or (self.takes_agent_bundles),
            token_issuer=self.minting.issuer or "",
        )

    def _workload(self, named: WorkloadSettings | NamedWorkloadSettings) -> Workload:
        mesh = self.workload
        return Workload(named.namespace, dict(named.labels), mesh.trust_domain, mesh.trust_domain_aliases)

    @property
    def takes_agent_bundles(self) -> bool:
        """True if trust bundles come from the Workload API."""
        return self.workload_api.socket is not None and self.workload_api.bundles

    @property
    def takes_agent_svid(self) -> bool:
        """True if our certificate comes from the Workload API."""
        sections = (self.tls, self.administrator.tls)
        return any(section is not None and section.source == "workload_api" for section in sections)

    @property
    def transport(self) -> Literal["grpcio", "fast"]:
        """The server for proxies: as set, else `fast` if it supports the other settings."""
        if self.server is not None:
            return self.server
        return "grpcio" if self.reflection else "fast"

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return `listen`, parsed."""
        return tuple(Endpoint.parse(text) for text in self.listen)

    def socket_access(self) -> SocketAccess:
        """Return mode and group of the Unix sockets that we create."""
        return SocketAccess(int(self.socket.mode, 8), self.socket.group)
