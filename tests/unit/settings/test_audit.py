"""Settings of the decision log: inconsistencies and files that can't be opened are faults with their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.audit_logs import KEY_PEM, PUBLIC_PEM
from zta_authz.audit.sinks import LineSink, NullSink
from zta_authz.errors import FaultsError
from zta_authz.settings import load_settings
from zta_authz.settings.audit import open_audit

if TYPE_CHECKING:
    from pathlib import Path

    from zta_authz.settings.model import Settings


def load(tmp_path: Path, audit: str) -> Settings:
    file = tmp_path / "settings.yaml"
    file.write_text(f"audit: {audit}\n")
    return load_settings(str(file), {})


@pytest.mark.parametrize(
    ("audit", "message"),
    [
        ("{sink: file}", "sink `file` has no path"),
        ("{path: /a}", "only sink `file` has a path"),
        ("{checkpoint: {path: /a, key_file: /b}}", "only sink `file` has checkpoints"),
        ("{sink: file, path: /a, checkpoint: {path: /a, key_file: /b}}", "in the log file itself"),
        ("{mask: [{field: path, how: hash}]}", "hashing needs a key"),
        ("{mask: [{field: path, how: drop}], mask_key_file: /a}", "no field is hashed"),
        ("{mask: [{field: path, how: drop}, {field: path, how: truncate}]}", "masked twice"),
        ("{mask: [{field: verdict, how: drop}]}", "field"),
        ("{sample_allows: 1.5}", "sample_allows"),
        ("{max_bytes: 1}", "max_bytes"),
    ],
)
def test_inconsistent_settings_are_faults(tmp_path: Path, audit: str, message: str) -> None:
    with pytest.raises(FaultsError) as caught:
        load(tmp_path, audit)
    assert message in str(caught.value)


def test_every_sink_can_be_opened(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(KEY_PEM)
    (tmp_path / "mask.key").write_bytes(bytes(32))
    whole = (
        f"{{sink: file, path: {tmp_path}/log, checkpoint: {{path: {tmp_path}/c, key_file: {tmp_path}/key.pem}}, "
        f"mask: [{{field: path, how: hash}}], mask_key_file: {tmp_path}/mask.key, sample_allows: 0.5}}"
    )
    for audit, kind in (("{sink: none}", NullSink), ("{sink: stdout}", LineSink), (whole, LineSink)):
        sink = open_audit(load(tmp_path, audit).audit)
        assert type(sink) is kind
        sink.close()
    assert (tmp_path / "log").read_bytes()
    assert (tmp_path / "c").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "/missing/log"}, "cannot be written"),
        ({"mask_key_file": "/missing/key"}, "cannot be read"),
        ({"mask_key_file": "short"}, "at least 32 bytes"),
        ({"key_file": "/missing/key"}, "cannot be read"),
        ({"key_file": "public.pem"}, "not a private key"),
        ({"checkpoints": "/missing/checkpoints"}, "cannot be written"),
        ({"checkpoints": "short"}, "something other than checkpoints"),
    ],
)
def test_a_decision_log_that_can_not_be_opened_is_a_fault(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    for name, content in (("key.pem", KEY_PEM), ("public.pem", PUBLIC_PEM), ("mask.key", bytes(32)), ("short", b"x")):
        (tmp_path / name).write_bytes(content)
    names = {"path": "log", "mask_key_file": "mask.key", "key_file": "key.pem", "checkpoints": "c"} | change
    place = {name: tmp_path / file for name, file in names.items()}
    audit = (
        f"{{sink: file, path: {place['path']}, mask: [{{field: path, how: hash}}], "
        f"mask_key_file: {place['mask_key_file']}, "
        f"checkpoint: {{path: {place['checkpoints']}, key_file: {place['key_file']}}}}}"
    )
    with pytest.raises(FaultsError) as caught:
        open_audit(load(tmp_path, audit).audit)
    assert message in str(caught.value)
