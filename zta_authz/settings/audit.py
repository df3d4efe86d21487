"""The decision log as the settings want it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from zta_authz import __version__
from zta_authz.audit.checkpoints import CheckpointWriter, load_signing_key
from zta_authz.audit.collector import CollectorOutput
from zta_authz.audit.masking import How, Maskable, Masker, MaskRule
from zta_authz.audit.outputs import PlainOutput
from zta_authz.audit.segments import SegmentedLog
from zta_authz.audit.sinks import LineSink, NullSink, OnFull
from zta_authz.errors import Fault, SettingsErrors, collect_faults
from zta_authz.otlp.messages import Origin, Signal
from zta_authz.settings.inconsistency import Inconsistency
from zta_authz.settings.otlp import connect
from zta_authz.telemetry.names import SERVICE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from zta_authz.audit.outputs import Output
    from zta_authz.settings.audit_model import AuditSettings
    from zta_authz.settings.model import Settings

_STDOUT = 1
_MAX_KEY_BYTES = 64 * 1024
_MILLISECONDS = 1e3


def audit_inconsistencies(settings: Settings) -> Iterator[Inconsistency]:
    """What of the decision log's settings does not go together."""
    wanted = settings.audit
    depends = (("audit",),)
    yield from _places(wanted)
    if wanted.sink != "file" and wanted.checkpoint is not None:
        told = "only what sink `file` writes has checkpoints"
        yield Inconsistency(("audit", "checkpoint"), told, "write `sink: file`", depends)
    if wanted.checkpoint is not None and wanted.checkpoint.path == wanted.path:
        told = "checkpoints stand outside of the log"
        yield Inconsistency(("audit", "checkpoint", "path"), told, "give them a file of their own", depends)
    hashes = any(mask.how == "hash" for mask in wanted.mask)
    if hashes and wanted.mask_key_file is None:
        hint = "make one: `head -c 32 /dev/urandom > FILE`"
        yield Inconsistency(("audit", "mask_key_file"), "hashes need a key", hint, depends)
    if not hashes and wanted.mask_key_file is not None:
        told = "no field is hashed"
        yield Inconsistency(("audit", "mask_key_file"), told, "leave it out, or write `how: hash`", depends)
    fields = [mask.field for mask in wanted.mask]
    for index, name in enumerate(fields):
        if name in fields[:index]:
            told = "the field is masked twice"
            yield Inconsistency(("audit", "mask", index, "field"), told, "leave one of the two", depends)


def _places(wanted: AuditSettings) -> Iterator[Inconsistency]:
    depends = (("audit",),)
    if wanted.sink == "file" and wanted.path is None:
        yield Inconsistency(("audit", "path"), "sink `file` has no path", "add `path: /var/log/...`", depends)
    if wanted.sink != "file" and wanted.path is not None:
        yield Inconsistency(("audit", "path"), "only sink `file` has a path", "write `sink: file`", depends)
    for name in ("max_bytes", "max_files", "flush_ms"):
        if wanted.sink != "file" and getattr(wanted, name) != type(wanted).model_fields[name].default:
            yield Inconsistency(("audit", name), "only sink `file` keeps to it", "write `sink: file`", depends)
    if wanted.sink == "otlp" and wanted.otlp is None:
        hint = "add `otlp: {endpoint: http://...:4317}`"
        yield Inconsistency(("audit", "otlp"), "sink `otlp` has no collector", hint, depends)
    if wanted.sink != "otlp" and wanted.otlp is not None:
        yield Inconsistency(("audit", "otlp"), "only sink `otlp` has a collector", "write `sink: otlp`", depends)


def open_audit(wanted: AuditSettings, origin: Origin | None = None, *, traced: bool = False) -> LineSink | NullSink:
    """The decision log. Raises `SettingsErrors` where a file can't be written, or a key can't be used.

    What is sent to a collector says that it is of `origin`; `traced`: checks have spans, and records name them.
    """
    if wanted.sink == "none":
        return NullSink()
    masker = _masker(wanted)
    output = _output(wanted, origin or Origin(SERVICE_NAME, __version__), traced=traced)
    return LineSink(output, on_full=OnFull(wanted.on_full), masker=masker, sample_allows=wanted.sample_allows)


def audit_faults(wanted: AuditSettings) -> list[Fault]:
    """All that would keep `open_audit` from opening a file, found without opening it for writing."""
    faults: list[Fault] = []
    with collect_faults(faults):
        _masker(wanted)
    checkpoint = wanted.checkpoint
    if checkpoint is not None:
        with collect_faults(faults):
            _signing_key(checkpoint.key_file)
    signed = None if checkpoint is None else checkpoint.path
    for path, setting in ((wanted.path, "audit.path"), (signed, "audit.checkpoint.path")):
        why = "" if path is None else _unwritable(path)
        if path is not None and why:
            faults.append(_no_file(path, why, setting))
    return faults


def _unwritable(path: str) -> str:
    """Why a file can't be written at `path`, "" where it can."""
    place, wanted = path, os.W_OK
    if not os.path.lexists(path):
        place, wanted = os.path.dirname(path) or os.curdir, os.W_OK | os.X_OK
    try:
        os.stat(place)
    except OSError as error:
        return error.strerror or ""
    if place == path and os.path.isdir(path):
        return os.strerror(errno.EISDIR)
    return "" if os.access(place, wanted) else os.strerror(errno.EACCES)


def _no_file(path: str, why: str | None, setting: str) -> Fault:
    hint = f"correct `{setting}`, or let this service's user write there"
    return Fault(path, 0, 0, f"cannot be written: {why}", hint)


def _output(wanted: AuditSettings, origin: Origin, *, traced: bool) -> Output:
    if wanted.path is not None:
        return _files(wanted, wanted.path)
    if wanted.otlp is None:
        return PlainOutput(os.dup(_STDOUT))
    transport = connect(wanted.otlp, Signal.LOGS, "audit.otlp")
    from zta_authz.otlp.logs import LogExporter  # noqa: PLC0415  megabytes that only those who send need

    return CollectorOutput(LogExporter(transport, origin), traced=traced)


def _masker(wanted: AuditSettings) -> Masker:
    rules = [MaskRule(Maskable(mask.field), How(mask.how)) for mask in wanted.mask]
    if wanted.mask_key_file is None:
        return Masker(rules)
    key = _read_key(wanted.mask_key_file, "audit.mask_key_file")
    try:
        return Masker(rules, key)
    except ValueError as error:
        hint = "make one: `head -c 32 /dev/urandom > FILE`"
        raise SettingsErrors([Fault(wanted.mask_key_file, 0, 0, str(error), hint)]) from error


def _files(wanted: AuditSettings, path: str) -> SegmentedLog:
    checkpoints = _checkpoints(wanted)
    try:
        return SegmentedLog(
            path,
            max_bytes=wanted.max_bytes,
            max_files=wanted.max_files,
            flush_seconds=wanted.flush_ms / _MILLISECONDS,
            checkpoints=checkpoints,
        )
    except OSError as error:
        raise SettingsErrors([_no_file(path, error.strerror, "audit.path")]) from error


def _checkpoints(wanted: AuditSettings) -> CheckpointWriter | None:
    if wanted.checkpoint is None:
        return None
    key = _signing_key(wanted.checkpoint.key_file)
    path = wanted.checkpoint.path
    hint = "mend `audit.checkpoint.path`, or give it a new file"
    try:
        return CheckpointWriter(path, key, wanted.checkpoint.interval_seconds)
    except OSError as error:
        raise SettingsErrors([_no_file(path, error.strerror, "audit.checkpoint.path")]) from error
    except ValueError as error:
        raise SettingsErrors([Fault(path, 0, 0, str(error), hint)]) from error


def _signing_key(source: str) -> Ed25519PrivateKey:
    pem = _read_key(source, "audit.checkpoint.key_file")
    try:
        return load_signing_key(pem)
    except ValueError as error:
        hint = "make one: `openssl genpkey -algorithm ed25519 -out FILE`"
        raise SettingsErrors([Fault(source, 0, 0, str(error), hint)]) from error


def _read_key(path: str, setting: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise SettingsErrors([Fault(path, 0, 0, f"cannot be read: {error.strerror}", f"mend `{setting}`")]) from error
