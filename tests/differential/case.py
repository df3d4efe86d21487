"""What one differential case is made of: a set of documents, how the proxy is set up, and requests, all plain data.

Everything here can be written to YAML and read back, so that a disagreement can be kept as a regression case.
Texts may hold placeholders that are filled in when the case is run:

    {jwks:a}        the JSON key set of issuer `a`, or another of `credentials.KEY_SETS` (in documents)
    {destination}   the IP address the set's listener was given (in documents)
    {token:NAME}    the token NAME of the request (in the path and header values)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A client certificate: its SANs by kind and its subject's attributes, in order; all may be empty."""

    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    subject: tuple[tuple[str, str], ...] = ()
    emails: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()

    @classmethod
    def read(cls, data: dict[str, Any]) -> Peer:
        """The peer written by `asdict`."""
        subject = tuple((str(name), str(value)) for name, value in data.get("subject", ()))
        sans = {kind: tuple(data.get(kind, ())) for kind in ("uris", "dns", "emails", "ips")}
        return cls(subject=subject, **sans)


@dataclass(frozen=True)
class Connection:
    """How a request reaches the proxy. `peer` and `sni` only count with `tls`; `sni` "" sends none."""

    tls: bool = False
    peer: Peer | None = None
    sni: str = ""
    source_ip: str = "127.0.0.1"
    port: int = 47080

    @classmethod
    def read(cls, data: dict[str, Any]) -> Connection:
        """The connection written by `asdict`."""
        peer = data.get("peer")
        return cls(**{**data, "peer": Peer.read(peer) if peer is not None else None})


@dataclass(frozen=True)
class Request:
    """An HTTP/1.1 request as it goes over the wire: characters stand for bytes (latin-1).

    `headers` are sent in this order, `host` among them. `tokens` describe JWTs by name, see `tokens.sign`.
    """

    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = (("host", "example.com"),)
    connection: Connection = Connection()
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, data: dict[str, Any]) -> Request:
        """The request written by `asdict`."""
        headers = tuple((str(name), str(value)) for name, value in data.get("headers", (("host", "example.com"),)))
        connection = Connection.read(data.get("connection", {}))
        return cls(**{**data, "headers": headers, "connection": connection})


@dataclass(frozen=True)
class Proxy:
    """The proxy's own settings that change what is matched."""

    use_remote_address: bool = False
    xff_num_trusted_hops: int = 0
    normalize_path: bool = True
    merge_slashes: bool = False


@dataclass(frozen=True)
class PolicySet:
    """Documents and the workload and proxy they are in force for."""

    documents: tuple[Document, ...]
    namespace: str = "foo"
    labels: dict[str, str] = field(default_factory=lambda: {"app": "web", "version": "v1"})
    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    proxy: Proxy = Proxy()
    name: str = ""

    @classmethod
    def read(cls, data: dict[str, Any]) -> PolicySet:
        """The set written by `asdict`."""
        return cls(
            **{
                **data,
                "documents": tuple(data["documents"]),
                "trust_domain_aliases": tuple(data.get("trust_domain_aliases", ())),
                "proxy": Proxy(**data.get("proxy", {})),
            }
        )


@dataclass(frozen=True)
class Case:
    """One set with one request."""

    policies: PolicySet
    request: Request

    def data(self) -> dict[str, Any]:
        """Plain data for YAML, without what has its default value."""
        return {
            "policies": _without_defaults(asdict(self.policies), asdict(PolicySet(documents=()))),
            "request": _without_defaults(asdict(self.request), asdict(Request())),
        }

    @classmethod
    def read(cls, data: dict[str, Any]) -> Case:
        """The case written by `data`."""
        return cls(PolicySet.read(data["policies"]), Request.read(data["request"]))


def _without_defaults(data: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in data.items():
        if key == "documents" or value != default.get(key):
            inner = default.get(key)
            nested = isinstance(value, dict) and isinstance(inner, dict) and key in ("proxy", "connection")
            kept[key] = _without_defaults(value, inner or {}) if nested else _plain(value)
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def fill(value: Any, texts: dict[str, str]) -> Any:
    """`value` with every placeholder of `texts` replaced in every string, at any depth."""
    if isinstance(value, str):
        for name, text in texts.items():
            value = value.replace(name, text)
        return value
    if isinstance(value, dict):
        return {key: fill(item, texts) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [fill(item, texts) for item in value]
    return value
