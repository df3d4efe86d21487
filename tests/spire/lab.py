"""Clients, Envoy and zta-authz that get all they show and trust from SPIFFE, and count every answer that is not right.

Who issues is handed in: SPIRE itself, or `mint.Mint`. Envoy takes its secrets from files that are replaced whole, as an
agent's own SDS would give them; a client asks on a new connection each time, with the SVID it has by then.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from envoy.demo.authz_connection import free_port
from envoy.demo.client import Request, send
from envoy.demo.envoyproc import Envoy
from envoy.demo.processes import Child, wait_until
from zta_authz.cli.envoy_config.bootstrap import bootstrap, to_mapping
from zta_authz.cli.envoy_config.envoy_options import AuthzTarget, EnvoyOptions, MtlsFiles
from zta_authz.cli.envoy_config.network_address import tcp, unix_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.spire.mint import Issued

OURS, PARTNER = "zta.test", "partner.test"
PROXY = "envoy"
EXPECTED = {"frontend": 200, f"{PARTNER}/orders": 200, "intruder": 403}
"""What each client must get, always."""
WORKLOADS = (PROXY, *EXPECTED)
LOOK_SECONDS = 0.2
_UPSTREAM = Path(__file__).resolve().parents[2] / "envoy" / "demo" / "upstream.py"
_POLICIES = f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: lab, namespace: default}}
spec:
  rules:
  - from: [{{source: {{principals: ["{OURS}/frontend", "{PARTNER}/orders"]}}}}]
"""


class Issuance(Protocol):
    """What issues SVIDs. `address` is our agent's, which zta-authz asks for its own."""

    address: str

    def tend(self) -> None:
        """Called every now and then: renew what is due without being asked for."""
        ...

    def issue(self, workload: str) -> Issued:
        """What `workload` shows and trusts from now on. Raises `OSError` while it can't be had."""
        ...


class Lab:
    """All that runs. `wrong` are the answers that were not right: when, whose, and what came instead."""

    def __init__(self, root: Path, sockets: Path, issuance: Issuance) -> None:
        self.root = root
        self.issuance = issuance
        self.answers: Counter[str] = Counter()
        self.wrong: list[tuple[float, str, str]] = []
        self.port = 0
        self._sockets = sockets
        self._has: dict[str, Issued] = {}
        self._over = threading.Event()
        self._began = time.monotonic()

    def start(self, envoy: Path, server: str, cleanup: contextlib.ExitStack) -> None:
        """Start everything, and begin to send."""
        self.renew()
        self._run(self._keep, cleanup)
        port = free_port()
        upstream = self._start_upstream(cleanup)
        self.authz = self._start_authz(port, server, cleanup)
        proxy = Envoy(envoy, self._bootstrap(port), admin=self._sockets / "admin.sock")
        cleanup.callback(proxy.child.stop)
        proxy.wait_ready()
        upstream.check()
        self.port = proxy.port()
        self._wait_until_all_is_right()
        for name in EXPECTED:
            self._run(self._sending(name), cleanup)
        cleanup.callback(self._over.set)  # first of all, before what they ask goes

    def _run(self, what: Callable[[], None], cleanup: contextlib.ExitStack) -> None:
        thread = threading.Thread(target=what)
        thread.start()
        cleanup.callback(thread.join, 30)
        cleanup.callback(self._over.set)

    def run(self, seconds: float) -> None:
        """Let it run, and see that nothing dies."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.authz.check()
            time.sleep(0.1)

    def status(self, workload: str) -> int:
        """What a request of `workload` comes to now; 0 where there is no TLS connection."""
        has = self._has[workload]
        try:
            return send(self.port, self._context(workload, has), Request(path="/")).status
        except OSError:
            return 0

    def renew(self) -> None:
        """Get for each workload what it must have anew; what can't be had now stays as it is."""
        for workload in WORKLOADS:
            has = self._has.get(workload)
            if has is None or time.time() >= has.until:
                with contextlib.suppress(OSError):
                    self._has[workload] = self.issuance.issue(workload)
                    if workload == PROXY:
                        self._write_secrets(self._has[workload])

    def renew_all(self) -> None:
        """Get everything anew now, as when a bundle changes."""
        for workload in WORKLOADS:
            self._has[workload] = self.issuance.issue(workload)
        self._write_secrets(self._has[PROXY])

    def _keep(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self.issuance.tend()
            self.renew()

    def _sending(self, workload: str) -> Callable[[], None]:
        def run() -> None:
            while not self._over.wait(0.01):
                status = self.status(workload)
                self.answers[workload] += 1
                if status != EXPECTED[workload]:
                    self.wrong.append((round(time.monotonic() - self._began, 1), workload, str(status)))

        return run

    def _wait_until_all_is_right(self) -> None:
        deadline = time.monotonic() + 30
        while (found := {name: self.status(name) for name in EXPECTED}) != EXPECTED:
            if time.monotonic() > deadline:
                raise AssertionError(f"{found}, not {EXPECTED}: {self.log()}")
            time.sleep(0.2)

    def _context(self, workload: str, has: Issued) -> ssl.SSLContext:
        file = self.root / f"{workload.replace('/', '-')}.pem"
        file.write_bytes(has.chain.encode() + has.key)
        context = ssl.create_default_context(cadata=has.bundle)
        context.load_cert_chain(file)
        return context

    def summary(self) -> str:
        """What was wrong, how often, and in which seconds."""
        found: dict[tuple[str, str], list[float]] = {}
        for at, workload, status in self.wrong:
            found.setdefault((workload, status), []).append(at)
        return "; ".join(f"{who}: {len(at)} times {what}, {at[0]} to {at[-1]} s" for (who, what), at in found.items())

    def log(self) -> str:
        """The end of what zta-authz said."""
        return (self.root / "authz.log").read_text()[-4000:]

    def _start_upstream(self, cleanup: contextlib.ExitStack) -> Child:
        socket, log = self._sockets / "upstream.sock", self.root / "upstream.log"
        child = Child("upstream", [sys.executable, str(_UPSTREAM), str(socket)], stdout=log, stderr=log)
        cleanup.callback(child.stop)
        wait_until(socket.exists, child)
        return child

    def _start_authz(self, port: int, server: str, cleanup: contextlib.ExitStack) -> Child:
        (self.root / "policies.yaml").write_text(_POLICIES)
        config = self.root / "zta-authz.yaml"
        settings = {
            "server": server,
            "listen": [f"127.0.0.1:{port}"],
            "policies": [str(self.root / "policies.yaml")],
            "workload": {"namespace": "default", "trust_domain": OURS},
            "client_address": {"use_remote_address": True},
            "audit": {"sink": "none"},
            "peer": {"verify_certificate": "required", "chain_from": ["certificate", "bundle", "xfcc"]},
            "health": {"listen": None},
            "tls": {
                "source": "workload_api",
                "allowed_spiffe_ids": [f"spiffe://{OURS}/{PROXY}"],
                "max_connection_age_seconds": min(20.0, (self._has[PROXY].until - time.time()) / 2),
            },
            "workload_api": {"socket": self.issuance.address},
        }
        config.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "zta_authz", "serve", "--config", str(config)]
        child = Child("zta-authz", command, stdout=self.root / "authz.out", stderr=self.root / "authz.log")
        cleanup.callback(child.stop)
        return child

    def _bootstrap(self, port: int) -> Path:
        files = MtlsFiles(server_id=f"spiffe://{OURS}/authz")
        options = EnvoyOptions(
            authz=AuthzTarget(addresses=(tcp("127.0.0.1", port),), mtls=True, files=files),
            listen=tcp("127.0.0.1", 0),
            upstream=unix_socket(str(self._sockets / "upstream.sock")),
            admin=unix_socket(str(self._sockets / "admin.sock")),
            authz_timeout=timedelta(seconds=5),  # machines stall
            per_try_timeout=timedelta(seconds=2),
            client_chain=True,
        )
        mapping = to_mapping(bootstrap(options)) | {"node": {"id": "lab", "cluster": "lab"}}
        self._use_secrets(mapping)
        file = self.root / "envoy.json"
        file.write_text(json.dumps(mapping))
        return file

    def _use_secrets(self, value: Any) -> None:
        """Let each TLS context below `value` take its secrets from the files that are replaced."""
        if isinstance(value, list):
            for item in value:
                self._use_secrets(item)
        if not isinstance(value, dict):
            return
        for item in value.values():
            self._use_secrets(item)
        if "tls_certificates" in value:
            del value["tls_certificates"]
            value["tls_certificate_sds_secret_configs"] = [self._secret("svid")]
            validation = value.pop("validation_context")
            validation.pop("trusted_ca")
            value["combined_validation_context"] = {
                "default_validation_context": validation,
                "validation_context_sds_secret_config": self._secret("bundle"),
            }

    def _secret(self, name: str) -> dict[str, Any]:
        source = {"path_config_source": {"path": str(self._sockets / f"{name}.json")}, "resource_api_version": "V3"}
        return {"name": name, "sds_config": source}

    def _write_secrets(self, issued: Issued) -> None:
        def text(content: str) -> dict[str, str]:
            return {"inline_string": content}

        svid = {"certificate_chain": text(issued.chain), "private_key": text(issued.key.decode())}
        secrets = {
            "svid": {"tls_certificate": svid},
            "bundle": {"validation_context": {"trusted_ca": text(issued.bundle)}},
        }
        for name, content in secrets.items():
            kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
            made = self._sockets / f".{name}.json"
            made.write_text(json.dumps({"resources": [{"@type": kind, "name": name, **content}]}))
            made.rename(self._sockets / f"{name}.json")


@contextlib.contextmanager
def running(root: Path, issuance: Issuance, envoy: Path, server: str) -> Iterator[Lab]:
    """A lab in `root`, which sends until the end; leaves nothing running."""
    with contextlib.ExitStack() as cleanup:
        sockets = Path(tempfile.mkdtemp(prefix="zta-lab-"))
        cleanup.callback(shutil.rmtree, sockets, ignore_errors=True)
        lab = Lab(root, sockets, issuance)
        lab.start(envoy, server, cleanup)
        yield lab
