"""The settings of the decision log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zta_authz.settings.otlp_model import CollectorSettings
from zta_authz.settings.values import PositiveSeconds, Section, Text

_MIB = 1024 * 1024


class MaskSettings(Section):
    """A field of decision records, and how it is masked."""

    field: Literal[
        "detail",
        "principal",
        "token_subject",
        "claimed_subject",
        "claimed_issuer",
        "token_issuer",
        "api_client",
        "host",
        "path",
        "source",
        "destination",
        "device",
    ]
    how: Literal["drop", "hash", "truncate"]


class CheckpointSettings(Section):
    """Signed checkpoints of the decision log: the file to append them to, and the Ed25519 signing key (PEM)."""

    path: Text
    key_file: Text
    interval_seconds: PositiveSeconds = 60.0


class AuditSettings(Section):
    """Where decisions are recorded, and what happens to an allow that can't be recorded.

    `path` is the file of sink `file`, `otlp` the collector of sink `otlp`. A log file is rotated at `max_bytes`,
    and `max_files` rotated files are kept. `flush_ms` limits how many milliseconds a written record may be missing
    from the disk.
    """

    sink: Literal["stdout", "file", "otlp", "none"] = "stdout"
    path: Text | None = None
    otlp: CollectorSettings | None = None
    on_full: Literal["deny", "drop_and_count"] = "deny"
    max_bytes: Annotated[int, Field(ge=4096, le=1024 * 1024 * _MIB)] = 100 * _MIB
    max_files: Annotated[int, Field(ge=1, le=10_000)] = 10
    flush_ms: Annotated[int, Field(ge=10, le=60_000)] = 1000
    sample_allows: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    mask: Annotated[tuple[MaskSettings, ...], Field(max_length=16)] = ()
    mask_key_file: Text | None = None
    checkpoint: CheckpointSettings | None = None
