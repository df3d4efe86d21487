"""A real Keycloak that transmits security events: fetched with Maven's ordinary client, started on loopback, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VERSION = "26.7.3"
ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
FETCH_SECONDS = 600.0
START_SECONDS = 600.0
REALM, CLIENT, SECRET, USER, PASSWORD = "shop", "zta-authz", "client-secret", "ann", "pw"
_ADMINISTRATOR = "administrator"


class NotToBeHad(Exception):
    """Keycloak can't be fetched or started here; says why."""


def fetch(directory: Path) -> Path:
    """Unpack Keycloak below `directory`, with Maven's copy of it. Returns its home. Raises `NotToBeHad`."""
    maven, java = shutil.which("mvn"), shutil.which("java")
    if java is None:
        raise NotToBeHad("there is no `java` to run Keycloak with")
    if maven is None:
        raise NotToBeHad("there is no `mvn` to fetch Keycloak with; name one in KEYCLOAK_HOME")
    command = [maven, "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"]
    command += [f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={directory}", "-Dmdep.useBaseVersion=true"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=FETCH_SECONDS, cwd=directory, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotToBeHad(f"Maven did not fetch Keycloak within {FETCH_SECONDS:g} s") from None
    if done.returncode != 0:
        raise NotToBeHad(f"Maven can't fetch Keycloak {VERSION}: {done.stdout.strip()[-300:]}")
    with zipfile.ZipFile(directory / f"keycloak-quarkus-dist-{VERSION}.zip") as archive:
        archive.extractall(directory)
    return directory / f"keycloak-{VERSION}"


class Keycloak:
    """One Keycloak with the realm `shop`, whose transmitter has the receiver `zta-authz`. Use it in `with`."""

    def __init__(self, home: Path, directory: Path, port: int, push_port: int) -> None:
        self.push_port = push_port
        """The only port of ours to which it may push."""
        self.url = f"http://127.0.0.1:{port}"
        self.issuer = f"{self.url}/realms/{REALM}"
        self._home = home
        self._log = directory / "keycloak.log"
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Keycloak:
        command = ["sh", str(self._home / "bin" / "kc.sh"), "start-dev", "--features=ssf", "--http-host=127.0.0.1"]
        command += [f"--http-port={self._port}", "--spi-ssf-transmitter--default--allow-insecure-push-targets=true"]
        command += ["--spi-ssf-transmitter--default--outbox-drainer-interval=2s", "--db=dev-mem"]
        environment = os.environ | {
            "KC_BOOTSTRAP_ADMIN_USERNAME": _ADMINISTRATOR, "KC_BOOTSTRAP_ADMIN_PASSWORD": PASSWORD,
            "JAVA_OPTS_APPEND": "-Xmx768m",
        }  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            self._wait()
            self._create_realm()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def token(self, client: str, form: Mapping[str, str], realm: str = REALM) -> str:
        """An access token of `client`."""
        fields = {"client_id": client, **form}
        answer = self._call("POST", f"/realms/{realm}/protocol/openid-connect/token", form=fields)
        return str(answer["access_token"])

    def login(self) -> str:
        """Log the user in. Returns the access token."""
        return str(self.tokens()["access_token"])

    def tokens(self) -> dict[str, Any]:
        """Log the user in. Returns the answer with all tokens."""
        form = {"client_id": "web", "grant_type": "password", "username": USER, "password": PASSWORD, "scope": "openid"}
        answer: dict[str, Any] = self._call("POST", f"/realms/{REALM}/protocol/openid-connect/token", form=form)
        return answer

    def log_out_of(self, refresh_token: str) -> None:
        """End one session, as its user does."""
        form = {"client_id": "web", "refresh_token": refresh_token}
        self._call("POST", f"/realms/{REALM}/protocol/openid-connect/logout", form=form)

    def logout(self) -> None:
        """End all sessions of the user, as an administrator does."""
        self.admin("POST", f"/users/{self.user_id}/logout", {})

    def emit(self, kind: str, subject: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        """Have the transmitter send an event of another system, as an administrator may."""
        body = {"eventType": kind, "sub_id": subject, "event": values}
        return self.admin("POST", f"/ssf/clients/{CLIENT}/events/emit", body)

    @property
    def user_id(self) -> str:
        """The `sub` of the user's tokens."""
        return str(self.admin("GET", f"/users?username={USER}")[0]["id"])

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Call the admin API of the realm."""
        form = {"grant_type": "password", "username": _ADMINISTRATOR, "password": PASSWORD}
        bearer = self.token("admin-cli", form, "master")
        return self._call(method, f"/admin/realms/{REALM}{path}", body, bearer)

    def _call(
        self, method: str, path: str, body: Any = None, bearer: str = "", form: Mapping[str, str] | None = None
    ) -> Any:
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        data = None
        if form is not None:
            data = urlencode(form).encode()
        elif body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = Request(self.url + path, data=data, method=method, headers=headers)
        try:
            with urlopen(request, timeout=60) as answer:
                content = answer.read()
        except HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()[:500]!r}") from error
        return json.loads(content) if content else None

    def _wait(self) -> None:
        """Wait until Keycloak answers. Raises `NotToBeHad` with the end of its log."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(URLError, OSError), urlopen(f"{self.url}/realms/master", timeout=5):
                return
            time.sleep(1)
        raise NotToBeHad(f"Keycloak does not start: {self._log.read_text(errors='replace')[-500:]}")

    def _create_realm(self) -> None:
        push = f"http://127.0.0.1:{self.push_port}/*"
        receiver = {
            "clientId": CLIENT, "secret": SECRET, "serviceAccountsEnabled": True, "standardFlowEnabled": False,
            "attributes": {"ssf.enabled": "true", "ssf.defaultSubjects": "ALL", "ssf.validPushUrls": push},
        }  # fmt: skip
        browser = {"clientId": "web", "publicClient": True, "directAccessGrantsEnabled": True}
        user = {
            "username": USER, "enabled": True, "email": "ann@example.com", "emailVerified": True, "firstName": "Ann",
            "lastName": "A", "credentials": [{"type": "password", "value": PASSWORD}],
        }  # fmt: skip
        form = {"grant_type": "password", "username": _ADMINISTRATOR, "password": PASSWORD}
        realm = {
            "realm": REALM, "enabled": True, "sslRequired": "none", "clients": [receiver, browser], "users": [user],
            "attributes": {"ssf.transmitterEnabled": "true"},
        }  # fmt: skip
        self._call("POST", "/admin/realms", realm, self.token("admin-cli", form, "master"))
        client_id = self.admin("GET", f"/clients?clientId={CLIENT}")[0]["id"]
        for scope in self.admin("GET", "/client-scopes"):
            if scope["name"] in ("ssf.read", "ssf.manage"):
                self.admin("PUT", f"/clients/{client_id}/optional-client-scopes/{scope['id']}")

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
