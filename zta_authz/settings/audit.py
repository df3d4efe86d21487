"""Build the decision log from its settings."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from zta_authz import __version__
from zta_authz.audit.checkpoints import CheckpointWriter, load_signing_key
from zta_authz.audit.collector import CollectorOutput
from zta_authz.audit.masking import Maskable, MaskAction, Masker, MaskRule
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
    from zta_authz.settings.audit_model import AuditSettings, CheckpointSettings
    from zta_authz.settings.model import Settings

_STDOUT = 1
_MAX_KEY_BYTES = 64 * 1024
_CHECKPOINT = "audit.checkpoint"
_MILLISECONDS = 1e3


def audit_inconsistencies(settings: Settings) -> Iterator[Inconsistency]:
    """Yield inconsistencies between the decision log's settings."""
    audit = settings.audit
    depends = (("audit",),)
    yield from _sinks(audit)
    if audit.sink != "file" and audit.checkpoint is not None:
        message = "only sink `file` has checkpoints"
        yield Inconsistency(("audit", "checkpoint"), message, "write `sink: file`", depends)
    if audit.checkpoint is not None and audit.checkpoint.path == audit.path:
        message = "checkpoints can't be in the log file itself"
        yield Inconsistency(("audit", "checkpoint", "path"), message, "use a separate file", depends)
    hashes = any(mask.how == "hash" for mask in audit.mask)
    if hashes and audit.mask_key_file is None:
        hint = "make one: `head -c 32 /dev/urandom > FILE`"
        yield Inconsistency(("audit", "mask_key_file"), "hashing needs a key", hint, depends)
    if not hashes and audit.mask_key_file is not None:
        message = "no field is hashed"
        yield Inconsistency(("audit", "mask_key_file"), message, "remove it, or write `how: hash`", depends)
    fields = [mask.field for mask in audit.mask]
    for index, name in enumerate(fields):
        if name in fields[:index]:
            message = "the field is masked twice"
            yield Inconsistency(("audit", "mask", index, "field"), message, "remove one of the two", depends)


def _sinks(audit: AuditSettings) -> Iterator[Inconsistency]:
    depends = (("audit",),)
    if audit.sink == "file" and audit.path is None:
        yield Inconsistency(("audit", "path"), "sink `file` has no path", "add `path: /var/log/...`", depends)
    if audit.sink != "file" and audit.path is not None:
        yield Inconsistency(("audit", "path"), "only sink `file` has a path", "write `sink: file`", depends)
    for name in ("max_bytes", "max_files", "flush_ms"):
        if audit.sink != "file" and getattr(audit, name) != type(audit).model_fields[name].default:
            yield Inconsistency(("audit", name), "applies to sink `file` only", "write `sink: file`", depends)
    if audit.sink == "otlp" and audit.otlp is None:
        hint = "add `otlp: {endpoint: http://...:4317}`"
        yield Inconsistency(("audit", "otlp"), "sink `otlp` has no collector", hint, depends)
    if audit.sink != "otlp" and audit.otlp is not None:
        yield Inconsistency(("audit", "otlp"), "only sink `otlp` has a collector", "write `sink: otlp`", depends)


def open_audit(audit: AuditSettings, origin: Origin | None = None, *, traced: bool = False) -> LineSink | NullSink:
    """Open the decision log. Raises `SettingsErrors` if a file can't be written or a key can't be used.

    Records sent to a collector carry `origin`. With `traced`, checks have spans and records name them.
    """
    if audit.sink == "none":
        return NullSink()
    masker = _masker(audit)
    output = _output(audit, origin or Origin(SERVICE_NAME, __version__), traced=traced)
    return LineSink(output, on_full=OnFull(audit.on_full), masker=masker, sample_allows=audit.sample_allows)


def audit_faults(audit: AuditSettings) -> list[Fault]:
    """Return the faults of the files that `open_audit` would open, found without opening them for writing."""
    faults: list[Fault] = []
    with collect_faults(faults):
        _masker(audit)
    checkpoint = audit.checkpoint
    if checkpoint is not None:
        with collect_faults(faults):
            _signing_key(checkpoint.key_file, _CHECKPOINT)
    signed = None if checkpoint is None else checkpoint.path
    for path, setting in ((audit.path, "audit.path"), (signed, "audit.checkpoint.path")):
        reason = "" if path is None else _unwritable(path)
        if path is not None and reason:
            faults.append(_file_fault(path, reason, setting))
    return faults


def _unwritable(path: str) -> str:
    """Return why a file can't be written at `path`, or "" if it can."""
    target, access = path, os.W_OK
    if not os.path.lexists(path):
        target, access = os.path.dirname(path) or os.curdir, os.W_OK | os.X_OK
    try:
        os.stat(target)
    except OSError as error:
        return error.strerror or ""
    if target == path and os.path.isdir(path):
        return os.strerror(errno.EISDIR)
    return "" if os.access(target, access) else os.strerror(errno.EACCES)


def _file_fault(path: str, reason: str | None, setting: str) -> Fault:
    hint = f"correct `{setting}`, or let this service's user write there"
    return Fault(path, 0, 0, f"cannot be written: {reason}", hint)


def _output(audit: AuditSettings, origin: Origin, *, traced: bool) -> Output:
    if audit.path is not None:
        return _files(audit, audit.path)
    if audit.otlp is None:
        return PlainOutput(os.dup(_STDOUT))
    transport = connect(audit.otlp, Signal.LOGS, "audit.otlp")
    from zta_authz.otlp.log_export import LogExporter  # noqa: PLC0415  megabytes, only needed to send

    return CollectorOutput(LogExporter(transport, origin), traced=traced)


def _masker(audit: AuditSettings) -> Masker:
    rules = [MaskRule(Maskable(mask.field), MaskAction(mask.how)) for mask in audit.mask]
    if audit.mask_key_file is None:
        return Masker(rules)
    key = _read_key(audit.mask_key_file, "audit.mask_key_file")
    try:
        return Masker(rules, key)
    except ValueError as error:
        hint = "make one: `head -c 32 /dev/urandom > FILE`"
        raise SettingsErrors([Fault(audit.mask_key_file, 0, 0, str(error), hint)]) from error


def _files(audit: AuditSettings, path: str) -> SegmentedLog:
    checkpoints = open_checkpoints(audit.checkpoint, _CHECKPOINT)
    try:
        return SegmentedLog(
            path,
            max_bytes=audit.max_bytes,
            max_files=audit.max_files,
            flush_seconds=audit.flush_ms / _MILLISECONDS,
            checkpoints=checkpoints,
        )
    except OSError as error:
        raise SettingsErrors([_file_fault(path, error.strerror, "audit.path")]) from error


def open_checkpoints(checkpoint: CheckpointSettings | None, setting: str) -> CheckpointWriter | None:
    """Open the checkpoints of a log whose section is called `setting`. Raises `SettingsErrors`."""
    if checkpoint is None:
        return None
    key = _signing_key(checkpoint.key_file, setting)
    path = checkpoint.path
    try:
        return CheckpointWriter(path, key, checkpoint.interval_seconds)
    except OSError as error:
        raise SettingsErrors([_file_fault(path, error.strerror, f"{setting}.path")]) from error
    except ValueError as error:
        raise SettingsErrors([Fault(path, 0, 0, str(error), f"correct `{setting}.path`, or use a new file")]) from error


def _signing_key(source: str, setting: str) -> Ed25519PrivateKey:
    pem = _read_key(source, f"{setting}.key_file")
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
        raise SettingsErrors(
            [Fault(path, 0, 0, f"cannot be read: {error.strerror}", f"correct `{setting}`")]
        ) from error
