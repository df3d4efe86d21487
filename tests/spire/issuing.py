"""SPIRE as what issues in the lab: two trust domains, each with a server and an agent, and a user for each workload.

Ours signs with an intermediate that SPIRE replaces every few minutes; the partner's authority is rotated on demand.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from tests.spire.lab import EXPECTED, OURS, PARTNER, PROXY
from tests.spire.mint import Issued
from tests.spire.real import Spire
from tests.support.pki import pem, root
from zta_authz.authn.bundle_formats import split_der

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

UIDS = {workload: 20_001 + number for number, workload in enumerate((PROXY, *EXPECTED))}
FETCH_SECONDS = 5.0
STEP_SECONDS = 45.0
"""Between two steps of a rotation: everybody has the new bundle, and renewed its SVID of a minute, by then."""


class SpireIssuance:
    """Started with all entries made. `directory` must be one that other users may enter."""

    def __init__(self, programs: Path, directory: Path, cleanup: ExitStack) -> None:
        self._programs = programs
        self._directory = directory
        upstream = self._upstream()
        self.ours = cleanup.enter_context(Spire(programs, directory / "a", OURS, ca_ttl="5m", upstream=upstream))
        self.partner = cleanup.enter_context(Spire(programs, directory / "b", PARTNER))
        self._exchange(self.ours, self.partner)
        self._exchange(self.partner, self.ours)
        self.address = self.ours.start_agent()
        self.partner.start_agent()
        self._enter(self.ours, "authz", os.getuid())
        for workload, uid in UIDS.items():
            spire = self._spire_of(workload)
            self._enter(spire, workload.rpartition("/")[2], uid)
        self._wait_for_entries()

    def _upstream(self) -> tuple[Path, Path]:
        now = time.time()
        authority = root("upstream", not_before=now - 60, not_after=now + 24 * 3600)
        certificate, key = self._directory / "upstream.pem", self._directory / "upstream.key"
        certificate.write_text(authority.pem)
        key.write_bytes(authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, key

    def _spire_of(self, workload: str) -> Spire:
        return self.partner if workload.startswith(f"{PARTNER}/") else self.ours

    def _exchange(self, of: Spire, into: Spire) -> None:
        file = self._directory / f"{of.domain}.json"
        file.write_text(of.server("bundle", "show", "-format", "spiffe").stdout)
        into.server("bundle", "set", "-id", f"spiffe://{of.domain}", "-format", "spiffe", "-path", str(file))

    def _enter(self, spire: Spire, path: str, uid: int) -> None:
        other = self.partner if spire is self.ours else self.ours
        spire.server(
            *("entry", "create", "-parentID", f"spiffe://{spire.domain}/agent"),
            *("-spiffeID", f"spiffe://{spire.domain}/{path}", "-selector", f"unix:uid:{uid}", "-dns", "localhost"),
            *("-federatesWith", f"spiffe://{other.domain}"),
        )

    def _wait_for_entries(self) -> None:
        deadline = time.monotonic() + 60
        for workload in UIDS:
            while True:
                try:
                    self.issue(workload)
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(1)

    def tend(self) -> None:
        """Agents renew by themselves."""

    def issue(self, workload: str) -> Issued:
        """What the agent has for the workload's user. Raises `OSError` while there is nothing."""
        spire = self._spire_of(workload)
        command = ["api", "fetch", "x509", "-output", "json", "-socketPath", str(spire.directory / "agent.sock")]
        done = subprocess.run(
            [str(self._programs / "spire-agent"), *command],
            user=UIDS[workload],
            capture_output=True,
            timeout=10,
            check=False,
            cwd="/",
        )
        if done.returncode:
            raise OSError(done.stderr.decode(errors="replace")[-300:])
        said: dict[str, Any] = json.loads(done.stdout)
        said = said[0] if isinstance(said, list) else said
        svid = said["svids"][0]
        chain = _certificates(svid["x509_svid"])
        anchors = _certificates(svid["bundle"])
        for federated in said.get("federated_bundles", {}).values():
            anchors += _certificates(federated)
        key = load_der_private_key(base64.b64decode(svid["x509_svid_key"]), None)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Issued(pem(*chain), secret, pem(*anchors), time.time() + FETCH_SECONDS)

    def rotate_authority(self, pause: Callable[[float], None]) -> None:
        """The partner's authority: another is prepared, made the one that signs, and the old one revoked."""

        def change(*command: str) -> Any:
            said = json.loads(self.partner.server("localauthority", "x509", *command, "-output", "json").stdout)
            self._exchange(self.partner, self.ours)
            return said

        prepared = change("prepare")["prepared_authority"]["authority_id"]
        pause(STEP_SECONDS)
        change("activate", "-authorityID", prepared)
        pause(STEP_SECONDS)
        old = change("show")["old"]["authority_id"]
        change("taint", "-authorityID", old)  # agents renew at once what it signed
        pause(STEP_SECONDS)
        change("revoke", "-authorityID", old)
        pause(STEP_SECONDS)

    def rotate_intermediate(self, pause: Callable[[float], None]) -> None:
        """SPIRE does so by itself."""
        pause(STEP_SECONDS)

    def kill_agent(self) -> None:
        """Our agent is killed."""
        self.ours.kill("spire-agent")

    def start_agent(self) -> None:
        """It is started again, and attested again."""
        self.ours.start_agent()

    def kill_server(self) -> None:
        """Our server is killed."""
        self.ours.kill("spire-server")

    def start_server(self) -> None:
        """It is started again, with what it has on its disk."""
        self.ours.start_server()

    def forget_partner(self) -> None:
        """We are federated with the partner no more."""
        self.ours.server("bundle", "delete", "-id", f"spiffe://{PARTNER}", "-mode", "dissociate")


def _certificates(text: str) -> list[x509.Certificate]:
    return [x509.load_der_x509_certificate(block) for block in split_der(base64.b64decode(text))]
