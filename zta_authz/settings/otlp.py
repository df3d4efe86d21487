"""Collectors as configured by the settings and the environment.

Headers may be secret. They come from a file or the environment, and no fault contains them or their file's lines. A
signal's own environment variable takes precedence over the common one, as in OpenTelemetry's exporters
(opentelemetry.io/docs/specs/otel/protocol/exporter).
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from zta_authz.errors import Fault, SettingsErrors, collect_faults
from zta_authz.otlp.messages import Target
from zta_authz.settings.inconsistency import Inconsistency
from zta_authz.settings.otlp_model import OLDER_KEYS, TracingSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from zta_authz.otlp.messages import Compression, Signal
    from zta_authz.otlp.transports import Transport
    from zta_authz.settings.environment import Path
    from zta_authz.settings.model import Settings
    from zta_authz.settings.otlp_model import CollectorSettings

_VARIABLES: Final = "OTEL_EXPORTER_OTLP_"
HEADERS_VARIABLE: Final = f"{_VARIABLES}HEADERS"
CA_VARIABLE: Final = f"{_VARIABLES}CERTIFICATE"
EXPORT_SECONDS: Final = 5.0
MAX_EXPORT_SECONDS: Final = 60.0

_MAX_FILE_BYTES = 64 * 1024
_NAME = re.compile(r"(?!.*-bin$)[0-9A-Za-z_.-]+", re.IGNORECASE)  # gRPC's names of ASCII metadata (gRPC over HTTP/2)
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_RESERVED = frozenset(("content-type", "content-length", "host", "te", "user-agent", "transfer-encoding", "connection"))

_COMPRESSIONS: Final[tuple[Compression, ...]] = ("none", "gzip", "deflate")

Header = tuple[str, str]


def otlp_inconsistencies(settings: Settings) -> Iterator[Inconsistency]:
    """Yield inconsistencies between the collectors' settings."""
    yield from _collector(("audit", "otlp"), settings.audit.otlp)
    yield from _collector(("metrics", "otlp"), settings.metrics.otlp)
    tracing = settings.tracing
    if tracing.otlp is not None:
        yield from _collector(("tracing", "otlp"), tracing.otlp)
        yield from _mixed(tracing)
    else:
        yield from _collector(("tracing",), tracing.collector, "otlp_endpoint")


def _mixed(tracing: TracingSettings) -> Iterator[Inconsistency]:
    """Report older keys beside the section that replaces them, since it would be unclear which apply."""
    message, depends = "is an older name of a field in `tracing.otlp`", (("tracing",),)
    for name in OLDER_KEYS:
        if getattr(tracing, name) != TracingSettings.model_fields[name].default:
            new = "endpoint" if name == "otlp_endpoint" else name
            yield Inconsistency(("tracing", name), message, f"write it as `tracing.otlp.{new}`", depends)


def _collector(path: Path, collector: CollectorSettings | None, endpoint: str = "endpoint") -> Iterator[Inconsistency]:
    if collector is None:
        return
    depends = (path,)
    if (collector.cert_file is None) != (collector.key_file is None):
        missing = "key_file" if collector.key_file is None else "cert_file"
        hint = "set both, or neither"
        yield Inconsistency((*path, missing), "the certificate and its key belong together", hint, depends)
    if not collector.endpoint.startswith("https://"):
        for name in ("ca_file", "cert_file", "key_file"):
            if getattr(collector, name) is not None:
                message = "the connection to this endpoint has no TLS"
                yield Inconsistency((*path, name), message, f"write `https://` in `{endpoint}`, or remove it", depends)


def connect(
    collector: CollectorSettings, signal: Signal, setting: str, environ: Mapping[str, str] = os.environ
) -> Transport:
    """Return a transport, not yet connected, to the collector of the section `setting`. Raises `SettingsErrors`."""
    faults: list[Fault] = []
    target = _target(collector, signal, setting, environ, faults)
    from zta_authz.otlp.transports import open_transport  # noqa: PLC0415  megabytes, only needed to send

    try:
        transport = open_transport(target, signal)
    except OSError as error:  # includes ssl.SSLError
        raise SettingsErrors([*faults, *_file_faults(target, setting, error)]) from error
    if faults:
        transport.close()
        raise SettingsErrors(faults)
    return transport


def exporter_target(
    collector: CollectorSettings, signal: Signal, setting: str, environ: Mapping[str, str] = os.environ
) -> Target:
    """Return the target of the SDK's exporter for the section `setting`. Raises `SettingsErrors`.

    It includes everything from the environment; the exporter itself reads no variables.
    """
    faults: list[Fault] = []
    target = _target(collector, signal, setting, environ, faults)
    if target.secure:
        from zta_authz.otlp.transports import tls_context  # noqa: PLC0415  megabytes, only needed to send

        try:
            tls_context(target)
        except OSError as error:  # includes ssl.SSLError
            raise SettingsErrors([*faults, *_file_faults(target, setting, error)]) from error
    with collect_faults(faults):
        target = replace(target, compression=_compression(signal, environ))
    with collect_faults(faults):
        target = replace(target, seconds=_seconds(signal, environ))
    if faults:
        raise SettingsErrors(faults)
    return target


def _compression(signal: Signal, environ: Mapping[str, str]) -> Compression:
    name, text = _variable(environ, f"{_VARIABLES}{signal.name}_COMPRESSION", f"{_VARIABLES}COMPRESSION")
    for known in _COMPRESSIONS:
        if text.strip().lower() == known:
            return known
    if text:
        raise SettingsErrors([_variable_fault(name, "is not a compression", "write `gzip`, `deflate` or `none`")])
    return "none"


def _seconds(signal: Signal, environ: Mapping[str, str]) -> float:
    """Return the timeout of one batch in seconds, the unit of OpenTelemetry's exporters for Python."""
    name, text = _variable(environ, f"{_VARIABLES}{signal.name}_TIMEOUT", f"{_VARIABLES}TIMEOUT")
    if not text:
        return EXPORT_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_EXPORT_SECONDS:
        message = f"is not a timeout of more than 0 and at most {MAX_EXPORT_SECONDS:.0f} seconds"
        raise SettingsErrors([_variable_fault(name, message, "write a number of seconds, such as `5`")])
    return seconds


def _variable_fault(name: str, message: str, hint: str) -> Fault:
    return Fault(f"environment variable {name}", 0, 0, message, hint)


def _file_faults(target: Target, setting: str, error: OSError) -> list[Fault]:
    """Return the faults of a collector's PEM files: each that can't be read, else that they can't be used."""
    hint = f"correct `{setting}.ca_file`, `cert_file` and `key_file`"
    files = [path for path in (target.ca_file, target.cert_file, target.key_file) if path is not None]
    faults: list[Fault] = []
    for path in files:
        try:
            with open(path, "rb"):
                pass
        except OSError as unreadable:
            faults.append(Fault(path, 0, 0, f"cannot be read: {unreadable.strerror}", hint))
    message = "can't be used as PEM" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
    return faults or [Fault(files[0] if files else setting, 0, 0, message, hint)]


def _target(
    collector: CollectorSettings, signal: Signal, setting: str, environ: Mapping[str, str], faults: list[Fault]
) -> Target:
    headers: tuple[Header, ...] = ()
    with collect_faults(faults):
        if collector.headers_file is not None:
            headers = _headers_of_file(collector.headers_file, setting)
        else:
            headers = _headers_of_variable(*_variable(environ, f"{_VARIABLES}{signal.name}_HEADERS", HEADERS_VARIABLE))
    ca_file = collector.ca_file
    if ca_file is None and collector.endpoint.startswith("https://"):
        ca_file = _variable(environ, f"{_VARIABLES}{signal.name}_CERTIFICATE", CA_VARIABLE)[1] or None
    cert_file, key_file = collector.cert_file, collector.key_file
    if cert_file is None and collector.endpoint.startswith("https://"):
        cert_file, key_file = (
            _variable(environ, f"{_VARIABLES}{signal.name}_{name}", f"{_VARIABLES}{name}")[1] or None
            for name in ("CLIENT_CERTIFICATE", "CLIENT_KEY")
        )
    return Target(collector.endpoint, collector.protocol, headers, ca_file, cert_file, key_file)


def _variable(environ: Mapping[str, str], first: str, second: str) -> tuple[str, str]:
    """Return the variable that applies and its value: `first`, or `second` if the first is empty."""
    return (first, environ[first]) if environ.get(first) else (second, environ.get(second, ""))


def _headers_of_file(path: str, setting: str) -> tuple[Header, ...]:
    """Read one `name: value` per line; empty lines and lines that begin with `#` are ignored."""
    hint = f"correct `{setting}.headers_file`"
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsErrors([Fault(path, 0, 0, f"cannot be read: {error.strerror}", hint)]) from error
    if len(content) > _MAX_FILE_BYTES:  # a truncated credential is useless
        raise SettingsErrors([Fault(path, 0, 0, f"has more than {_MAX_FILE_BYTES // 1024} KiB", hint)])
    lines = [(number, line.strip()) for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1)]
    fields = [(number, line.partition(":")) for number, line in lines if line and not line.startswith("#")]
    headers = ((number, name.strip(), value.strip()) for number, (name, _, value) in fields)
    return _checked(headers, path, "write `name: value` on each line")


def _headers_of_variable(variable: str, text: str) -> tuple[Header, ...]:
    """Read `name=value` pairs separated by commas, with percent-encoded values, as OpenTelemetry's exporters do."""
    fields = [item.partition("=") for item in text.split(",") if item.strip()]
    headers = ((0, name.strip(), unquote(value.strip())) for name, _, value in fields)
    return _checked(headers, f"environment variable {variable}", "write `name=value,name=value`")


def _checked(lines: Iterable[tuple[int, str, str]], source: str, hint: str) -> tuple[Header, ...]:
    headers: list[Header] = []
    faults: list[Fault] = []
    for number, name, value in lines:
        lower = name.lower()
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or lower in _RESERVED or lower.startswith("grpc-"):
            faults.append(Fault(source, number, 1 if number else 0, "contains a header that can't be sent", hint))
        else:
            headers.append((lower, value))
    if faults:
        raise SettingsErrors(faults)
    return tuple(headers)
