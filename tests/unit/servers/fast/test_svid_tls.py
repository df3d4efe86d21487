"""Our SVID's key in memory files, and what the system needs for them."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.pki import private_key, root
from zta_authz.authn.bundles import BundleSlot
from zta_authz.authn.chain import Authorities
from zta_authz.authn.own_svid import SvidSlot, read_own_svid
from zta_authz.errors import SettingsErrors
from zta_authz.model.spiffe import TrustDomain
from zta_authz.servers.fast.svid_tls import SvidListener
from zta_authz.servers.svid_tls import SvidTls

US = "spiffe://cluster.local/ns/zta/sa/authz"
PROXY = "spiffe://cluster.local/ns/default/sa/proxy"
VALID = {"not_before": time.time() - 60, "not_after": time.time() + 3600}
CA = root("ca", **VALID)


class Swapped:
    """A connection whose context is replaced."""

    context: object = None


def tls_with(*, svid: bool = True, bundle: bool = True) -> SvidTls:
    slot, bundles = SvidSlot(), BundleSlot()
    if svid:
        key = private_key("P-256", 71)
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        slot.current = read_own_svid(US, CA.issue(uris=(US,), key=key, **VALID).public_bytes(Encoding.DER), der)
    if bundle:
        bundles.current = {"cluster.local": Authorities(TrustDomain("cluster.local"), (CA.certificate,))}  # type: ignore[assignment]  # a mapping
    return SvidTls(slot, bundles, [PROXY])


def choose(listener: SvidListener) -> tuple[object, object]:
    """What a ClientHello is answered: an alert or None, and the context that goes on."""
    connection = Swapped()
    return listener._choose(connection, None, listener.context), connection.context  # type: ignore[arg-type]


def memory_files() -> list[str]:
    names = []
    for name in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return [name for name in names if "memfd:svid" in name]


def test_one_context_is_made_per_svid_and_bundles_and_its_file_is_closed() -> None:
    listener = SvidListener(tls_with())
    alert, context = choose(listener)
    assert alert is None
    assert context is not None
    assert choose(listener) == (None, context)
    assert memory_files() == []


@pytest.mark.parametrize("missing", ["svid", "bundle"])
def test_without_an_svid_or_a_bundle_a_handshake_gets_an_alert(missing: str) -> None:
    alert, context = choose(SvidListener(tls_with(**{missing: False})))
    assert alert is not None
    assert context is None


def test_an_svid_that_openssl_rejects_causes_an_alert_and_no_key_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tls = tls_with()
    listener = SvidListener(tls)
    svid = tls.svid
    assert svid is not None
    monkeypatch.setattr(type(tls), "authorities_of", lambda *_: b"no certificate")
    alert, _ = choose(listener)
    assert alert is not None
    assert "can't be used" in caplog.text
    assert svid.key_pem.decode().splitlines()[1] not in caplog.text
    assert memory_files() == []


def test_after_running_out_of_file_descriptors_during_a_rotation_handshakes_succeed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = SvidListener(tls_with())
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(os, "memfd_create", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "too many")))
        alert, _ = choose(listener)
        assert alert is not None
    assert choose(listener)[0] is not None  # not with each handshake
    later = time.monotonic() + 1.1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    alert, context = choose(listener)
    assert alert is None
    assert context is not None


def test_a_system_without_memory_files_is_reported_as_a_settings_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(SettingsErrors, match=r"can't keep our SVID's key in memory .*AttributeError") as caught:
        SvidListener(tls_with())
    assert "server: grpcio" in str(caught.value)


def test_a_system_without_proc_is_reported_as_a_settings_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(FileNotFoundError()))
    with pytest.raises(SettingsErrors, match="FileNotFoundError"):
        SvidListener(tls_with())
    assert Path("/proc/self/fd").exists()
    assert memory_files() == []
