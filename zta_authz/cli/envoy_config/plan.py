"""Combine the command line and the settings into a plan, and collect all faults."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import combinations
from typing import TYPE_CHECKING, Final

from zta_authz.cli.envoy_config.envoy_options import (
    AUTHZ_ACCOUNT,
    BODY_BYTES,
    TIMEOUT,
    TLS_DIRECTORY,
    AuthzTarget,
    EnvoyOptions,
    MtlsFiles,
    TlsFiles,
    Tracing,
)
from zta_authz.cli.envoy_config.network_address import NetworkAddress, check_path, parse_address, tcp
from zta_authz.cli.envoy_config.targets import SIDECAR, authz_addresses, style_of
from zta_authz.errors import Fault, FaultsError
from zta_authz.model.options import ChainSource
from zta_authz.model.spiffe import SpiffeId, TrustDomain
from zta_authz.servers.listeners import Endpoint

if TYPE_CHECKING:
    import argparse

    from zta_authz.settings import Settings

_OFF: Final = "off"
_TIMEOUT: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(ms|s)\Z")
_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")  # RFC 6454, section 6.2
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_MAX_PORT: Final = 65535
_SHORTEST, _LONGEST = timedelta(milliseconds=1), timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Plan:
    """The configuration to build, and facts about the service for its comments.

    `allowed`: SPIFFE IDs that may send checks over mutual TLS. `peer_uids`: users that may send checks over Unix
    sockets; empty permits all users.
    """

    style: str
    options: EnvoyOptions
    workers: int
    allowed: tuple[str, ...]
    peer_uids: tuple[int, ...] = ()


def read_plan(arguments: argparse.Namespace, settings: Settings) -> Plan:
    """Read the arguments, with defaults from the settings. Raises `FaultsError` with all faults."""
    reader = _Reader(arguments, settings)
    plan = reader.plan()
    if reader.faults:
        raise FaultsError(reader.faults)
    return plan


class _Reader:
    def __init__(self, arguments: argparse.Namespace, settings: Settings) -> None:
        self.faults: list[Fault] = []
        self._given = arguments
        self._settings = settings
        self._style = style_of(arguments, settings)

    def plan(self) -> Plan:
        given, settings = self._given, self._settings
        tls_dir = self._tls_directory(given.tls_dir)
        client = settings.client_address
        remote = client.use_remote_address or "use_remote_address" not in client.model_fields_set
        options = EnvoyOptions(
            authz=self._authz(tls_dir),
            listen=self._address("--listen", given.listen, "0.0.0.0:8443", unix=False),
            upstream=self._address("--upstream", given.upstream, "127.0.0.1:8080", names=True),
            admin=self._admin(given.admin),
            tls=TlsFiles(f"{tls_dir}/server.pem", f"{tls_dir}/server.key", f"{tls_dir}/client-ca.pem"),
            authz_timeout=self._timeout(given.timeout),
            body_bytes=self._body_bytes(given.body_bytes),
            use_remote_address=remote,
            xff_num_trusted_hops=client.xff_num_trusted_hops,
            tracing=self._tracing(given.otlp),
            clients_may_be_anonymous=given.client_certificates == "optional",
            client_chain=ChainSource.XFCC in settings.peer.chain_from,
            upstream_http2=given.upstream_protocol == "http2",
            websocket=given.websocket,
            cors_origins=self._origins(given.cors_origin),
        )
        options = replace(options, per_try_timeout=options.authz_timeout)
        self._collisions(options)
        self._unprinted()
        workers = given.workers or settings.workers
        allowed = settings.tls.allowed_spiffe_ids if settings.tls is not None else ()
        return Plan(self._style, options, workers, tuple(allowed), settings.socket.peer_uids)

    def _unprinted(self) -> None:
        """Report options that have no effect on the part that is printed."""
        given = self._given
        changing = {
            "--cors-origin": bool(given.cors_origin),
            "--client-certificates": given.client_certificates is not None,
            "--websocket": given.websocket,
            "--upstream-protocol": given.upstream_protocol is not None,
        }
        for flag in (flag for flag, is_given in changing.items() if is_given and given.part in ("filter", "cluster")):
            hint = "use `--part bootstrap` and copy the setting from there, or leave the option out"
            self._fault(flag, f"has no effect on --part {given.part}", hint)

    def _fault(self, where: str, message: str, hint: str) -> None:
        self.faults.append(Fault(where, 0, 0, message, hint))

    def _address(
        self, flag: str, text: str | None, default: str, *, names: bool = False, unix: bool = True
    ) -> NetworkAddress:
        example = f"write for example `{default}`"
        try:
            address = parse_address(default if text is None else text, names=names)
        except ValueError as error:
            self._fault(flag, str(error), example)
            return parse_address(default)
        if address.is_unix and not unix:
            self._fault(flag, "a Unix socket is not supported here", example)
        if names and address.is_wildcard:
            self._fault(flag, "the address of all interfaces is for listeners; nothing can connect to it", example)
        return address

    def _authz(self, tls_dir: str) -> AuthzTarget:
        addresses = authz_addresses(self._given, self._settings, self._style, self.faults)
        if self._style == SIDECAR:
            for flag, value in (("--authz-id", self._given.authz_id), ("--trust-domain", self._given.trust_domain)):
                if value is not None:
                    self._fault(flag, "Unix sockets do not use TLS", "leave the option out, or use --style mtls")
            return AuthzTarget(addresses)
        prefix = f"{tls_dir}/authz"
        files = MtlsFiles(f"{prefix}-client.pem", f"{prefix}-client.key", f"{prefix}-ca.pem", self._authz_id())
        return AuthzTarget(addresses, mtls=True, files=files)

    def _authz_id(self) -> str:
        domain, named = self._given.trust_domain, self._given.authz_id
        default = f"spiffe://{self._settings.workload.trust_domain}/{AUTHZ_ACCOUNT}"
        flag = "--trust-domain" if named is None else "--authz-id"
        try:
            if named is not None:
                return str(SpiffeId.parse(named))
            return default if domain is None else f"spiffe://{TrustDomain.parse(domain)}/{AUTHZ_ACCOUNT}"
        except ValueError as error:
            self._fault(flag, str(error), f"write for example `{default if named is not None else 'cluster.local'}`")
            return default

    def _admin(self, text: str | None) -> NetworkAddress | None:
        if text == _OFF:
            return None
        default = "127.0.0.1:9901"
        address = self._address("--admin", text, default)
        if not address.is_local:
            hint = f"write for example `{default}`, a Unix socket, or `{_OFF}`"
            self._fault("--admin", "other machines could stop Envoy and read its configuration", hint)
        return address

    def _timeout(self, text: str | None) -> timedelta:
        if text is None:
            return TIMEOUT
        match = _TIMEOUT.match(text)
        value = timedelta(**{"milliseconds" if match[2] == "ms" else "seconds": float(match[1])}) if match else None
        if value is None or not _SHORTEST <= value <= _LONGEST:
            hint = "write milliseconds or seconds, for example `200ms` or `1.5s`"
            self._fault("--timeout", "not a duration from 1ms to 60s", hint)
            return TIMEOUT
        return value

    def _body_bytes(self, text: str | None) -> int:
        limit = self._settings.http2.max_message_bytes
        if text is not None and not (text.isascii() and text.isdigit() and len(text) <= 10):
            self._fault("--body-bytes", "not a number of bytes", "write for example `8192`, or `0` to send no bodies")
            return BODY_BYTES
        value = BODY_BYTES if text is None else int(text)
        if value >= limit:
            hint = "write a smaller number, or raise `http2.max_message_bytes`"
            self._fault("--body-bytes", f"zta-authz accepts messages of at most {limit} bytes, including headers", hint)
        return value

    def _origins(self, texts: list[str]) -> tuple[str, ...]:
        for text in texts:
            scheme, _, rest = text.partition("://")
            port = rest.rpartition("]")[2].partition(":")[2]
            if not _ORIGIN.fullmatch(text) or (port and int(port) > _MAX_PORT):
                hint = "write for example `https://shop.example`, without a path; `*` would permit every page"
                self._fault("--cors-origin", f"`{text}` is not an origin", hint)
            elif port == _DEFAULT_PORTS[scheme]:
                hint = f"write `{text.removesuffix(f':{port}')}`"
                self._fault("--cors-origin", f"`{text}`: browsers omit the default port {port}", hint)
        return tuple(dict.fromkeys(texts))

    def _tls_directory(self, text: str | None) -> str:
        try:
            check_path(text or TLS_DIRECTORY)
        except ValueError as error:
            self._fault("--tls-dir", str(error), f"write for example `{TLS_DIRECTORY}`")
            return TLS_DIRECTORY
        return text or TLS_DIRECTORY

    def _tracing(self, text: str | None) -> Tracing | None:
        if text is None:
            return None
        collector = self._address("--otlp", text, "127.0.0.1:4317", names=True)
        return Tracing(collector, round(100 * self._settings.tracing.sample_ratio, 4))

    def _collisions(self, options: EnvoyOptions) -> None:
        """Report addresses that are used twice: by two listeners, or by an Envoy that would call itself."""
        addresses = [("--listen", options.listen), ("--upstream", options.upstream)]
        addresses += [] if options.admin is None else [("--admin", options.admin)]
        addresses += [] if options.tracing is None else [("--otlp", options.tracing.collector)]
        addresses += [("zta-authz", address) for address in options.authz.addresses]
        if self._style == SIDECAR and self._settings.health.listen is not None:
            health = Endpoint.parse(self._settings.health.listen)
            if health.port:  # 0: the kernel chooses a free port
                addresses.append(("zta-authz's `health.listen`", tcp(health.host, health.port)))
        for (name, address), (other, other_address) in combinations(addresses, 2):
            if name != other and address.conflicts_with(other_address):
                what = f"{name} and {other} have the same address, {other_address}"
                self._fault("addresses", what, "use different addresses")
