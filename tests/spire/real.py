"""SPIRE's server and agent: installed with Go's ordinary client, started on loopback and Unix sockets, and ended."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAMS = ("spire-server", "spire-agent")
SOURCE = "github.com/spiffe/spire/cmd/"
INSTALL_SECONDS = 480.0
START_SECONDS = 30.0

_SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{directory}/api.sock"
  trust_domain = "{domain}"
  data_dir = "{directory}"
  log_level = "WARN"
  ca_ttl = "{ca_ttl}"
  default_x509_svid_ttl = "{svid_ttl}"
  federation {{
    bundle_endpoint {{
      address = "127.0.0.1"
      port = {endpoint_port}
      profile "https_spiffe" {{}}
    }}
  }}
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{ database_type = "sqlite3", connection_string = "{directory}/datastore.sqlite3" }}
  }}
  KeyManager "disk" {{ plugin_data {{ keys_path = "{directory}/keys.json" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  {upstream}
}}
"""
_UPSTREAM = """UpstreamAuthority "disk" {{
    plugin_data {{ cert_file_path = "{0}", key_file_path = "{1}" }}
  }}"""

_AGENT = """
agent {{
  data_dir = "{directory}"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{directory}/agent.sock"
  trust_domain = "{domain}"
  insecure_bootstrap = true
  log_level = "WARN"
}}
plugins {{
  KeyManager "memory" {{ plugin_data {{}} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


class NotToBeHad(Exception):
    """SPIRE can't be installed or started here; says why."""


def install(directory: Path) -> None:
    """Put both programs into `directory`. Raises `NotToBeHad`."""
    go = shutil.which("go")
    if go is None:
        raise NotToBeHad("there is no `go` to install SPIRE with")
    environment = os.environ | {"GOBIN": str(directory), "CGO_ENABLED": "1"}
    command = [go, "install", *(f"{SOURCE}{program}@latest" for program in PROGRAMS)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the compilers that it started, too
            process.communicate()
            raise NotToBeHad(f"`go install` took more than {INSTALL_SECONDS:g} s") from None
    if process.returncode:
        raise NotToBeHad(f"`go install` failed: {' '.join(said.split())[-400:]}")


def free_port() -> int:
    """A port on loopback that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Spire:
    """A trust domain's server, and the agents that were started with it. Ends all of them on leaving."""

    programs: Path
    directory: Path
    domain: str
    port: int = field(default_factory=free_port)
    endpoint_port: int = field(default_factory=free_port)
    ca_ttl: str = "1h"
    svid_ttl: str = "1m"
    upstream: tuple[Path, Path] | None = None
    """The certificate and the key of an authority above the server's own, which is an intermediate then."""
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Spire:
        try:
            self.directory.mkdir(mode=0o711)
            self.start_server()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Stop what runs."""
        for process in reversed(self._running):
            process.terminate()
        for process in reversed(self._running):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def start_server(self) -> None:
        """Start the server, also one that was killed."""
        self._start("spire-server", _SERVER, "run")
        self._wait(lambda: self.server("healthcheck", check=False).returncode == 0)

    def kill(self, program: str) -> None:
        """Kill the server or the agent, as a lack of memory does."""
        for process in [each for each in self._running if program in str(each.args)]:
            process.kill()
            process.wait()
            self._running.remove(process)

    def server(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of `spire-server` against this server."""
        return subprocess.run(
            [str(self.programs / "spire-server"), *command, "-socketPath", f"{self.directory}/api.sock"],
            capture_output=True,
            text=True,
            timeout=30,
            check=check,
        )

    def start_agent(self) -> str:
        """Start an agent, attested with a join token; its Workload API's address."""
        said = self.server("token", "generate", "-spiffeID", f"spiffe://{self.domain}/agent").stdout
        token = said.split("Token:", 1)[1].split()[0]
        (self.directory / "agent.sock").unlink(missing_ok=True)
        self._start("spire-agent", _AGENT, "run", "-joinToken", token)
        self._wait((self.directory / "agent.sock").exists)
        return f"unix:{self.directory}/agent.sock"

    def _start(self, program: str, configuration: str, *command: str) -> None:
        config = self.directory / f"{program}.conf"
        config.write_text(
            configuration.format(
                directory=self.directory,
                domain=self.domain,
                port=self.port,
                endpoint_port=self.endpoint_port,
                ca_ttl=self.ca_ttl,
                svid_ttl=self.svid_ttl,
                upstream="" if self.upstream is None else _UPSTREAM.format(*self.upstream),
            )
        )
        with (self.directory / f"{program}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self.programs / program), *command, "-config", str(config)], stdout=log, stderr=log
            )
        self._running.append(process)

    def _wait(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not is_so():
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._running):
                logs = " ".join(log.read_text()[-300:] for log in self.directory.glob("*.log"))
                raise NotToBeHad(f"SPIRE does not start: {' '.join(logs.split())}")
            time.sleep(0.2)
