"""The addresses at which Envoy reaches zta-authz: from the command line, otherwise from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.cli.envoy_config.network_address import NetworkAddress, parse_address, worker_sockets
from zta_authz.errors import Fault

if TYPE_CHECKING:
    import argparse

    from zta_authz.settings import Settings

SIDECAR: Final = "sidecar"
MTLS: Final = "mtls"
MAX_WORKERS: Final = 64
_DEFAULT_TCP: Final = "127.0.0.1:9191"
_EXAMPLE: Final = {SIDECAR: "unix:/run/zta-authz/authz.sock", MTLS: "zta-authz.zta-system.svc:9191"}
_UNIX: Final = "unix:"


def style_of(arguments: argparse.Namespace, settings: Settings) -> str:
    """Return the requested style; by default mutual TLS if all addresses are TCP, otherwise sidecar."""
    if arguments.style is not None:
        return str(arguments.style)
    return SIDECAR if any(address.startswith(_UNIX) for address in arguments.authz or settings.listen) else MTLS


def authz_addresses(
    arguments: argparse.Namespace, settings: Settings, style: str, faults: list[Fault]
) -> tuple[NetworkAddress, ...]:
    """Return one address for each process that Envoy can distinguish. Adds faults to `faults`."""
    reader = _AddressReader(arguments, settings, faults)
    addresses = reader.sidecar() if style == SIDECAR else reader.mtls()
    for address in addresses:
        if addresses.count(address) > 1:
            reader.fault("--authz", f"{address} is given twice", "remove one of the two")
            break
    return addresses


class _AddressReader:
    def __init__(self, arguments: argparse.Namespace, settings: Settings, faults: list[Fault]) -> None:
        self._given = arguments
        self._settings = settings
        self._faults = faults
        self._source = arguments.config or "settings"

    def fault(self, where: str, message: str, hint: str) -> None:
        self._faults.append(Fault(where, 0, 0, message, hint))

    def sidecar(self) -> tuple[NetworkAddress, ...]:
        workers = self._given.workers if self._given.workers is not None else self._settings.workers
        if not 1 <= workers <= MAX_WORKERS:
            self.fault("--workers", f"not a number from 1 to {MAX_WORKERS}", "write the value of the setting `workers`")
            workers = 1
        named = self._named(SIDECAR) if self._given.authz else self._listening(unix=True)[:1]
        return tuple(address for base in named for address in self._of_workers(base, workers))

    def _of_workers(self, base: NetworkAddress, workers: int) -> tuple[NetworkAddress, ...]:
        addresses = worker_sockets(base.path, workers)
        try:
            parse_address(str(addresses[-1]))
        except ValueError as error:
            self.fault("--workers", str(error), "the number of the worker is appended to the path: shorten the path")
        return addresses

    def mtls(self) -> tuple[NetworkAddress, ...]:
        if self._given.workers is not None:
            hint = "leave --workers out; add an --authz for each process"
            self.fault("--workers", "over TCP, the workers of one process share a port", hint)
        listen_is_set = "listen" in self._settings.model_fields_set
        served = self._listening(unix=False) if listen_is_set else ()
        if served and self._settings.tls is None:
            hint = "set `tls`, or set `listen` to a Unix socket and use --style sidecar"
            self.fault(self._source, "`tls` is not set: zta-authz would not accept Envoy's TLS connections", hint)
        if self._given.authz:
            return self._named(MTLS)
        if not listen_is_set:
            return (parse_address(_DEFAULT_TCP),)
        if served and served[0].is_wildcard:
            hint = f"use --authz HOST:PORT, for example `{_EXAMPLE[MTLS]}`"
            self.fault(self._source, f"`listen`: {served[0]} is not an address that Envoy can connect to", hint)
        return served[:1]

    def _named(self, style: str) -> tuple[NetworkAddress, ...]:
        """Return the addresses that --authz gives."""
        addresses = []
        example = f"write for example `{_EXAMPLE[style]}`"
        for text in self._given.authz:
            try:
                address = parse_address(text, names=style == MTLS)
            except ValueError as error:
                self.fault("--authz", str(error), example)
                continue
            if address.is_unix is not (style == SIDECAR):
                kind = "Unix sockets" if style == SIDECAR else "TCP"
                self.fault("--authz", f"style {style} requires {kind}", example)
            elif address.is_wildcard:
                self.fault("--authz", "nobody can connect to the address of all interfaces", example)
            else:
                addresses.append(address)
        return tuple(addresses)

    def _listening(self, *, unix: bool) -> tuple[NetworkAddress, ...]:
        """Return the addresses of one kind in the setting `listen`."""
        texts = [text for text in self._settings.listen if text.startswith(_UNIX) is unix]
        if not texts and not self._given.authz:
            what = "a Unix socket" if unix else "TCP"
            other = MTLS if unix else SIDECAR
            self.fault(
                self._source, f"`listen`: zta-authz does not listen on {what}", f"add one, or use --style {other}"
            )
        addresses = []
        for text in texts:
            try:
                addresses.append(parse_address(text))
            except ValueError as error:
                self.fault(self._source, f"`listen`: {error}", "change the setting")
        return tuple(addresses)
