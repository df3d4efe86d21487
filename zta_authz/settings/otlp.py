"""Collectors as the settings and the environment want them.

Headers may be secret: they come from a file or from the environment, and neither they nor their file's lines are in
any fault. Of the environment's variables the one of the signal counts before the one of all, as in OpenTelemetry's
exporters (opentelemetry.io/docs/specs/otel/protocol/exporter).
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
_NAME = re.compile(r"(?!.*-bin$)[0-9A-Za-z_.-]+", re.IGNORECASE)  # what gRPC takes with a text (gRPC over HTTP/2)
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_OURS = frozenset(("content-type", "content-length", "host", "te", "user-agent", "transfer-encoding", "connection"))

_COMPRESSIONS: Final[tuple[Compression, ...]] = ("none", "gzip", "deflate")

Header = tuple[str, str]


def otlp_inconsistencies(settings: Settings) -> Iterator[Inconsistency]:
    """What of the collectors' settings does not go together."""
    yield from _collector(("audit", "otlp"), settings.audit.otlp)
    yield from _collector(("metrics", "otlp"), settings.metrics.otlp)
    tracing = settings.tracing
    if tracing.otlp is not None:
        yield from _collector(("tracing", "otlp"), tracing.otlp)
        yield from _mixed(tracing)
    else:
        yield from _collector(("tracing",), tracing.collector, "otlp_endpoint")


def _mixed(tracing: TracingSettings) -> Iterator[Inconsistency]:
    """Older keys beside the section that took their place: it would be unclear which of them counts."""
    message, depends = "is the older name of what `tracing.otlp` says", (("tracing",),)
    for name in OLDER_KEYS:
        if getattr(tracing, name) != TracingSettings.model_fields[name].default:
            new = "endpoint" if name == "otlp_endpoint" else name
            yield Inconsistency(("tracing", name), message, f"write it as `tracing.otlp.{new}`", depends)


def _collector(path: Path, wanted: CollectorSettings | None, endpoint: str = "endpoint") -> Iterator[Inconsistency]:
    if wanted is None:
        return
    depends = (path,)
    if (wanted.cert_file is None) != (wanted.key_file is None):
        missing = "key_file" if wanted.key_file is None else "cert_file"
        hint = "give both, or leave both out"
        yield Inconsistency((*path, missing), "our certificate and its key go together", hint, depends)
    if not wanted.endpoint.startswith("https://"):
        for name in ("ca_file", "cert_file", "key_file"):
            if getattr(wanted, name) is not None:
                told = "there is no TLS to this endpoint"
                yield Inconsistency((*path, name), told, f"write `https://` in `{endpoint}`, or leave it out", depends)


def connect(
    wanted: CollectorSettings, signal: Signal, setting: str, environ: Mapping[str, str] = os.environ
) -> Transport:
    """The way to the collector of the section `setting`, not connected yet. Raises `SettingsErrors`."""
    faults: list[Fault] = []
    target = _target(wanted, signal, setting, environ, faults)
    from zta_authz.otlp.transports import open_transport  # noqa: PLC0415  megabytes that only those who send need

    try:
        transport = open_transport(target, signal)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsErrors([*faults, *_of_files(target, setting, error)]) from error
    if faults:
        transport.close()
        raise SettingsErrors(faults)
    return transport


def exporter_target(
    wanted: CollectorSettings, signal: Signal, setting: str, environ: Mapping[str, str] = os.environ
) -> Target:
    """Where the SDK's exporter of the section `setting` sends, and how. Raises `SettingsErrors`.

    All that is taken from the environment is in it: the exporter reads nothing there by itself.
    """
    faults: list[Fault] = []
    target = _target(wanted, signal, setting, environ, faults)
    if target.secure:
        from zta_authz.otlp.transports import tls_context  # noqa: PLC0415  megabytes that only those who send need

        try:
            tls_context(target)
        except OSError as error:  # ssl.SSLError is one
            raise SettingsErrors([*faults, *_of_files(target, setting, error)]) from error
    with collect_faults(faults):
        target = replace(target, compression=_compression(signal, environ))
    with collect_faults(faults):
        target = replace(target, seconds=_seconds(signal, environ))
    if faults:
        raise SettingsErrors(faults)
    return target


def _compression(signal: Signal, environ: Mapping[str, str]) -> Compression:
    name, text = _said(environ, f"{_VARIABLES}{signal.name}_COMPRESSION", f"{_VARIABLES}COMPRESSION")
    for known in _COMPRESSIONS:
        if text.strip().lower() == known:
            return known
    if text:
        raise SettingsErrors([_of_variable(name, "is not a compression", "write `gzip`, `deflate` or `none`")])
    return "none"


def _seconds(signal: Signal, environ: Mapping[str, str]) -> float:
    """For one batch. Seconds, as OpenTelemetry's exporters for Python read it."""
    name, text = _said(environ, f"{_VARIABLES}{signal.name}_TIMEOUT", f"{_VARIABLES}TIMEOUT")
    if not text:
        return EXPORT_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_EXPORT_SECONDS:
        what = f"is not a timeout of more than 0 and at most {MAX_EXPORT_SECONDS:.0f} seconds"
        raise SettingsErrors([_of_variable(name, what, "write a number of seconds, such as `5`")])
    return seconds


def _of_variable(name: str, message: str, hint: str) -> Fault:
    return Fault(f"environment variable {name}", 0, 0, message, hint)


def _of_files(target: Target, setting: str, error: OSError) -> list[Fault]:
    """What is wrong with the PEM files of a collector: each that can't be read, else that they are of no use."""
    hint = f"correct `{setting}.ca_file`, `cert_file` and `key_file`"
    files = [path for path in (target.ca_file, target.cert_file, target.key_file) if path is not None]
    found: list[Fault] = []
    for path in files:
        try:
            with open(path, "rb"):
                pass
        except OSError as wrong:
            found.append(Fault(path, 0, 0, f"cannot be read: {wrong.strerror}", hint))
    said = "can't be used as PEM" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
    return found or [Fault(files[0] if files else setting, 0, 0, said, hint)]


def _target(
    wanted: CollectorSettings, signal: Signal, setting: str, environ: Mapping[str, str], faults: list[Fault]
) -> Target:
    headers: tuple[Header, ...] = ()
    with collect_faults(faults):
        if wanted.headers_file is not None:
            headers = _headers_of_file(wanted.headers_file, setting)
        else:
            headers = _headers_of_variable(*_said(environ, f"{_VARIABLES}{signal.name}_HEADERS", HEADERS_VARIABLE))
    ca_file = wanted.ca_file
    if ca_file is None and wanted.endpoint.startswith("https://"):
        ca_file = _said(environ, f"{_VARIABLES}{signal.name}_CERTIFICATE", CA_VARIABLE)[1] or None
    cert_file, key_file = wanted.cert_file, wanted.key_file
    if cert_file is None and wanted.endpoint.startswith("https://"):
        cert_file, key_file = (
            _said(environ, f"{_VARIABLES}{signal.name}_{name}", f"{_VARIABLES}{name}")[1] or None
            for name in ("CLIENT_CERTIFICATE", "CLIENT_KEY")
        )
    return Target(wanted.endpoint, wanted.protocol, headers, ca_file, cert_file, key_file)


def _said(environ: Mapping[str, str], first: str, second: str) -> tuple[str, str]:
    """The variable that counts, and what it says: the second one where the first says nothing."""
    return (first, environ[first]) if environ.get(first) else (second, environ.get(second, ""))


def _headers_of_file(path: str, setting: str) -> tuple[Header, ...]:
    """`name: value` a line; empty lines and those that begin with `#` say nothing."""
    hint = f"mend `{setting}.headers_file`"
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsErrors([Fault(path, 0, 0, f"cannot be read: {error.strerror}", hint)]) from error
    if len(content) > _MAX_FILE_BYTES:  # a part of a credential is none
        raise SettingsErrors([Fault(path, 0, 0, f"has more than {_MAX_FILE_BYTES // 1024} KiB", hint)])
    lines = [(number, line.strip()) for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1)]
    said = [(number, line.partition(":")) for number, line in lines if line and not line.startswith("#")]
    found = ((number, name.strip(), value.strip()) for number, (name, _, value) in said)
    return _checked(found, path, "write `name: value` on each line")


def _headers_of_variable(variable: str, text: str) -> tuple[Header, ...]:
    """`name=value` with commas, values percent-encoded, as OpenTelemetry's exporters read it."""
    said = [item.partition("=") for item in text.split(",") if item.strip()]
    found = ((0, name.strip(), unquote(value.strip())) for name, _, value in said)
    return _checked(found, f"environment variable {variable}", "write `name=value,name=value`")


def _checked(found: Iterable[tuple[int, str, str]], source: str, hint: str) -> tuple[Header, ...]:
    headers: list[Header] = []
    faults: list[Fault] = []
    for number, name, value in found:
        lower = name.lower()
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or lower in _OURS or lower.startswith("grpc-"):
            faults.append(Fault(source, number, 1 if number else 0, "holds what is no header to send", hint))
        else:
            headers.append((lower, value))
    if faults:
        raise SettingsErrors(faults)
    return tuple(headers)
