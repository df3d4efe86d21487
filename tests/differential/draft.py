"""A request while it is being made: mutable, with its token's claims apart until they are placed."""

from __future__ import annotations

import base64
import copy
import urllib.parse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, struct_pb2

from tests.differential import vocabulary as words
from tests.differential.case import Connection, Request
from tests.differential.credentials import ISSUERS

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

Json = dict[str, Any]
_SPELT_OTHERWISE = 0.15
"""How many tokens are not written where they stand as everybody writes them."""


class Draft:
    """What a request will hold; `claims` None sends no token."""

    def __init__(self, rng: random.Random, issuers: Sequence[str]) -> None:
        """A plain GET; `issuers` are those that the set knows."""
        self._rng = rng
        self._issuers = issuers or sorted(ISSUERS.values())
        self.method = rng.choice(("GET", "GET", "GET", "POST"))
        self.path = rng.choice(("/", "/api", "/api/items", "/api/items/1", "/public/index.html"))
        self.headers: list[tuple[str, str]] = [("host", rng.choice(("example.com", "api.example.com")))]
        self.connection = Connection()
        self.claims: Json | None = None
        self.token: Json = {}
        self.second_token: Json | None = None
        self._tokens: dict[str, Json] = {}

    def set_connection(self, **changes: Any) -> None:
        """Change the connection."""
        self.connection = replace(self.connection, **changes)

    def set_header(self, name: str, value: str) -> None:
        """The header, instead of any it had."""
        self.headers = [item for item in self.headers if item[0] != name] + [(name, value)]

    def set_fact(self, value: Any) -> None:
        """The dynamic metadata `facts`: any JSON value, as the base64 of a protobuf Value."""
        message = json_format.ParseDict(value, struct_pb2.Value())
        self.set_header("x-facts", base64.b64encode(message.SerializeToString()).decode())

    def claim(self, path: list[str], value: Any) -> None:
        """Set the claim at `path`, making the objects on the way."""
        if self.claims is None:
            self.claims = {"iss": self._rng.choice(self._issuers), "sub": "alice"}
        target = self.claims
        for key in path[:-1]:
            inner = target.get(key)
            if not isinstance(inner, dict):
                inner = target[key] = {}
            target = inner
        target[path[-1]] = copy.deepcopy(value)  # the vocabulary's own values must stay as they are

    def place_token(self, rules: list[Json]) -> None:
        """Put the token where one of the `jwtRules` looks for it, or where none does."""
        if self.claims is None and "text" not in self.token:
            return
        issuer = (self.claims or {}).get("iss")
        rule = next((rule for rule in rules if rule.get("issuer") == issuer), self._rng.choice(rules or [{}]))
        if rule.get("audiences") and self.claims is not None and self._rng.random() < 0.8:
            self.claims.setdefault("aud", self._rng.choice(rule["audiences"]))
        key = next((name for name, text in ISSUERS.items() if text == issuer), "a")
        self._place("first", {"key": key, "claims": self.claims, **self.token}, rule)
        if self.second_token is not None:
            self._place("second", self.second_token, self._rng.choice(rules or [{}]))

    def _place(self, name: str, token: Json, rule: Json) -> None:
        self._tokens[name] = token
        text = f"{{token:{name}}}"
        places = [("authorization", "Bearer "), ("?", "access_token")]
        if any(field in rule for field in ("fromHeaders", "fromParams", "fromCookies")) and self._rng.random() < 0.9:
            places = [(entry["name"], entry.get("prefix", "")) for entry in rule.get("fromHeaders", ())]
            places += [("?", parameter) for parameter in rule.get("fromParams", ())]
            places += [("cookie", cookie + "=") for cookie in rule.get("fromCookies", ())]
        where, prefix = places[0] if self._rng.random() < 0.6 else self._rng.choice(places)
        before = behind = ""
        if self._rng.random() < _SPELT_OTHERWISE:
            before, behind = self._rng.choice(words.BETWEEN), self._rng.choice(words.BEHIND)
        if where == "?":
            self._place_in_query(prefix, text)
        elif where == "cookie":
            self.headers.append(("cookie", self._cookie(prefix, text, before, behind)))
        else:
            self.headers.append((where, f"{prefix}{before}{text}{behind}"))

    def _place_in_query(self, name: str, text: str) -> None:
        name = urllib.parse.quote(name, safe="")
        if self._rng.random() < _SPELT_OTHERWISE:
            name = self._rng.choice((name, name.replace("t", "%74"), name.upper(), f"{name}=&{name}", f"x=1&{name}"))
            text = self._rng.choice((text, f"{text}&{name}=x", f"{text}%3D", f"{text}%00", f"%2E{text}", f"{text}#f"))
        self.path += ("&" if "?" in self.path else "?") + f"{name}={text}"

    def _cookie(self, name: str, text: str, before: str, behind: str) -> str:
        forms = (f"{name}{before}{text}{behind}", f'{name}"{text}"', f"a=b; {name}{text}", f"{name}{text}; {name}x")
        return self._rng.choice(forms) if before or behind else f"{name}{text}"

    def request(self) -> Request:
        """The request as it stands."""
        return Request(self.method, self.path, tuple(self.headers), self.connection, self._tokens)
