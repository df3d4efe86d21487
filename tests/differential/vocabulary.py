"""The few words policies and requests are made of: few, so that they often meet."""

from __future__ import annotations

from tests.differential.credentials import ISSUERS, KEY_SETS

NAMESPACES = ("foo", "bar", "foo-prod", "istio-system")
ACCOUNTS = ("sleep", "sleep-x", "web.app", "admin")
TRUST_DOMAINS = ("cluster.local", "td1", "old-td", "td2")
ALIASES: tuple[tuple[str, ...], ...] = ((), (), ("old-td",), ("old-td", "td2"), ("*-td",), ("cluster.local",))

PRINCIPALS = (
    "cluster.local/ns/foo/sa/sleep",
    "cluster.local/ns/bar/sa/admin",
    "td1/ns/foo/sa/sleep",
    "old-td/ns/foo/sa/sleep",
    "td2/ns/bar/sa/web.app",
    "td1/ns/foo/cluster/c1/sa/sleep/pod/p-1",
    "td1/sleep",
    "*/ns/foo/sa/sleep",
    "*-td/ns/foo/sa/sleep",
    "*local/ns/foo/sa/sleep",
    "td*/ns/foo/sa/sleep",
    "td1/ns/f+o/sa/(x)",
)
NAMESPACE_PATTERNS = ("foo", "bar", "foo*", "*-prod", "f*o", "*", "istio-system", "o")
SERVICE_ACCOUNTS = ("sleep", "foo/sleep", "bar/admin", "istio-system/sleep", "foo/web.app", "admin")
TRUST_DOMAIN_PATTERNS = ("*", "cluster.local", "td1", "td*", "*-td", "old-td", "c*local", "t*1")

PEERS: tuple[dict[str, tuple[object, ...]], ...] = (
    {"uris": ("https://client.example/ns/foo/x",)},
    {"dns": ("client.example",)},
    {"dns": ("client.example",), "subject": (("CN", "spiffe://td1/ns/foo/sa/sleep"),)},
    {"subject": (("CN", "client/ns/foo/x"),)},
    {"subject": (("O", "Acme, Inc"), ("OU", "a/ns/bar/b"), ("CN", "client"))},
    {"subject": (("CN", "client"),)},
    {},
    {"uris": ("spiffe://td1/ns/bar/sa/x", "spiffe://cluster.local/ns/foo/sa/sleep"), "dns": ("client.example",)},
    {"uris": ("spiffe://cluster.local/ns/foo/sa/sleep", "https://client.example/"), "subject": (("CN", "c"),)},
    {"uris": ("spiffe://TD1/ns/foo/sa/sleep",)},
    {"uris": ("spiffe://td1",)},
    {"uris": ("spiffe://td1/ns/foo",)},
    {"uris": ("SPIFFE://td1/ns/foo/sa/sleep",)},
    {"uris": ("urn:example:client",), "dns": ("a.example", "b.example")},
    {"uris": ("",), "dns": ("client.example",)},
    {"uris": ("spiffe://cluster.local/ns/f%6Fo/sa/sleep",)},
    {"subject": (("O", "#/ns/foo/ "), ("CN", "caf\u00e9/ns/bar/+;<>"))},
    {"emails": ("a@example.com",), "ips": ("127.0.0.1",)},
    {"emails": ("a@example.com",), "ips": ("127.0.0.1",), "subject": (("CN", "x/ns/foo/y"),)},
)
"""Peers beside those made from the principals above."""

ISSUER_NAMES = tuple(ISSUERS)
SUBJECTS = ("alice", "bob", "svc/batch", "")
REQUEST_PRINCIPALS = (
    "*",
    "*/*",
    "*/alice",
    "*alice",
    "*example/alice",
    "*b/bob",
    f"{ISSUERS['a']}/alice",
    f"{ISSUERS['a']}/*",
    f"{ISSUERS['a']}/al*",
    f"{ISSUERS['b']}/bob",
    f"{ISSUERS['b']}/*",
    f"{ISSUERS['b']}/svc/batch",
    "issuer*",
    "https://issuer*",
    ISSUERS["b"],
    ISSUERS["a"],
)
AUDIENCES = ("aud-a", "aud-b", "https://aud-c", "https://aud-c/")
CLAIM_KEYS = (
    "[sub]",
    "[iss]",
    "[groups]",
    "[scope]",
    "[permission]",
    "[roles]",
    "[realm][roles]",
    "[realm][deep][name]",
    "[a.b]",
    "[level]",
    "[email verified]",
    "[aud]",
    "[realm]",
)
CLAIM_VALUES = (
    "admin",
    "read",
    "write",
    "adm*",
    "*min",
    "*",
    "read write",
    "7",
    "true",
    "alice",
    "null",
    "caf\u00e9",
    "caf*",
)
CLAIMS: tuple[object, ...] = (
    "admin",
    "admins",
    "superadmin",
    "Admin",
    "read write",
    "write read admin",
    " read",
    "",
    ["admin", "read"],
    ["superadmin"],
    [],
    [""],
    ["read write"],
    [7, "admin"],
    [["admin"]],
    [{"admin": "admin"}],
    7,
    7.5,
    True,
    None,
    {"admin": "admin"},
    "7",
    "true",
    "null",
    "admin\n",
    "\nadmin",
    "adm\x00in",
    "caf\u00e9",
    "\U0001f600",
    "read\twrite",
    "read  write ",
    10**30,
    -7,
    0.0000001,
    -1e30,
    1e300,
    2**53 + 1,
    18446744073709551615,
    "x" * 9000,
    " admin ",
    "a\u00a0b",
    ["<a>&'\"\\", "\u2028\ufeff\u0001", "caf\u00e9"],
    [1e20, 1e-7, 123456789012345678, -0.0, 0.1],
    {"b": {"c": [True, None]}, "a": "x"},
    {"roles": ["admin"], "deep": {"name": "read"}},
    {"roles": "admin", "deep": []},
)
"""What a claim may hold, of every JSON type."""

HOSTS = (
    "example.com",
    "api.example.com",
    "*.example.com",
    "example.com:*",
    "API.example.com",
    "example.com:47080",
    "*",
    "[2001:db8::1]",
    "localhost*",
    "*.EXAMPLE.com",
    "exa*",
    "*m",
)
METHODS = ("GET", "POST", "DELETE", "OPTIONS", "*", "P*", "*T", "get", "HEAD")
PATHS = (
    "/",
    "/api",
    "/api/*",
    "/api*",
    "*/items",
    "*.html",
    "*",
    "/api/items",
    "/api/items/",
    "/Api/items",
    "/a b",
    "/caf\u00e9",
    "/api;v=1",
    "/api/*/items",
    "*foo*",
    "/public/index.html",
    "//api",
    "/api%2fitems",
)
TEMPLATES = (
    "/{*}",
    "/api/{*}",
    "/api/{*}/items",
    "/api/{**}",
    "/{**}/items",
    "/{**}",
    "/api/{*}/{**}/end",
    "/{*}/{*}",
    "/api/{**}/",
    "/api.v1/{*}",
    "/a=b/{*}",
    "/api/{**}/items.html",
    "/a+b/(x)/{*}",
    "/~u/{**}",
    "/a%20b/{*}",
    "/$x/{*}",
)
PORTS = ("47080", "47443", "80", "0", "65535")
HEADERS = (
    "x-a",
    "X-Mixed",
    "x_under",
    "user-agent",
    "cookie",
    "x-jwt-sub",
    "x-jwt-claim",
    "x-jwt-payload",
    "accept",
    "host",
)
RARE_HEADERS = (
    "authorization",
    "x-token",
    "x-forwarded-for",
    ":authority",
    ":method",
    ":path",
    "te",
    "content-type",
    "referer",
)
CLAIM_HEADER_VALUES = (
    "*",
    "admin",
    "adm*",
    "7",
    "7.500000",
    "-7.000000",
    "true",
    "read write",
    "caf\u00e9",
    "WyJhZG1pbiIsInJlYWQiXQ==",
    "W10=",
    "W*",
    "*=",
    "eyJhZG1pbiI6ImFkbWluIn0=",
)
"""What headers from claims are compared with, beside `HEADER_VALUES`."""
HEADER_VALUES = ("v1", "v2", "v*", "*1", "*", "v1,v2", "caf\u00e9", "alice", "/api")
SENT_HEADER_VALUES = ("v1", "v2", "v11", "V1", "", "v1,v2", "v1, v2", " v1 ", "x", "caf\u00c3\u00a9", "caf\u00e9", "1")
SNIS = ("api.example.com", "*.example.com", "api*", "*", "API.example.com", "other.test")
SENT_SNIS = ("", "api.example.com", "API.example.com", "b.example.com", "other.test")
SOURCE_IPS = ("127.0.0.1", "127.0.0.2", "127.0.9.9")
SOURCE_BLOCKS = ("127.0.0.1", "127.0.0.0/24", "127.0.0.2/32", "127.0.0.77/24", "10.0.0.0/8", "::1", "0.0.0.0/0", "::/0")
REMOTE_IPS = (
    "203.0.113.7",
    "203.0.113.8",
    "198.51.100.1",
    "2001:db8::1",
    "2001:DB8:0::1",
    "::ffff:203.0.113.7",
    "203.0.113.7:80",
    "[2001:db8::1]:80",
    "[2001:db8::1]",
    "203.0.113.07",
    "unknown",
    "",
    "127.0.0.2",
    "::1",
    "::",
    "fe80::1%1",
    "2001:db8::1%07",
    "2001:db8::1%eth0",
    "203.0.113",
    "0xcb.0.113.7",
    "203.0.113.256",
    "203.0.113.7.",
    "203.0.113.7\t",
    "2001:db8::1::",
    "2001:db8:0:0:0:0:0:1",
)
REMOTE_BLOCKS = ("203.0.113.7", "203.0.113.0/24", "2001:db8::/32", "2001:db8::1", "127.0.0.0/8", "0.0.0.0/0", "::/0")
DESTINATION_BLOCKS = ("{destination}", "{destination}/16", "127.0.0.0/8", "10.0.0.0/8", "::/0", "{destination}/32")
FACTS = ("ok", "not ok", "o*", "*k", "*")
LISTED_FACTS = ("[ok]", "[o*]", "[*]", "[x]")
SENT_FACTS = ("ok", "not ok", "", "OK", "k")
SENT_VALUES: tuple[object, ...] = (
    7,
    True,
    None,
    ["ok", 7],
    [["ok"]],
    {"ok": "ok"},
    "o\nk",
    [],
    ["o\n"],
    ["not ok", "ok"],
)
"""What the fact that is a Value may hold besides texts."""
LABELS: tuple[dict[str, str], ...] = ({"app": "web"}, {"app": "web", "version": "v1"}, {"app": "other"}, {"tier": "x"})

CLAIM_OUTPUTS = ("groups", "level", "scope", "realm.roles", "realm", "a.b", "aud", "realm.deep.name", "none")
"""Claims for `outputClaimToHeaders`, beside `sub`."""
ISSUER_KEY_SETS = {
    issuer: tuple(name for name in KEY_SETS if name.partition("-")[0] == issuer and name != issuer)
    for issuer in ISSUERS
}
"""Key sets beside the usual one of each issuer."""
PREFIXES = ("Token ", "Token", "Token=", "Bearer ", "Bearer", "jwt:", "=", " ")
PARAMS = ("token", "access_token", "t k", "a%b")
COOKIES = ("session", "SESSION", "__Host-jwt")
BETWEEN = ("", "", " ", "  ", "=", "= ", '"', ":", "!@#", "\t", ".", "-", "x", "\xe9")
"""What stands between a header's prefix and a token."""
BEHIND = ("", "", "", " ", ",", ";", '"', "=", "==", ".", ", x", "%")
"""What stands behind a token."""
TAILS = ("=", "==", "===", ".", "A", "AA", "_", "%")
"""What is put behind header or payload before they are signed."""
SIGNATURE_TAILS = ("=", "==", "===", ".", "%", ".A", "=A")
"""What is put behind a signature; not a byte more, see `docs/differential.md`."""
JSON_MEMBERS = (
    '"x":1',
    '"x":1,"x":2',
    '"sub":"bob"',
    '"s\\u0075b":"bob"',
    '"iss":"issuer-b"',
    '"iss":"https://issuer-a.example"',
    '"aud":"aud-a"',
    '"groups":"admin"',
    '"groups":"admin","groups":"none"',
    '"x":{"a":1,"a":1}',
    '"x":[{"a":{"b":1,"\\u0062":1}}]',
    '"x":{"a":1,"A":1}',
    '"level":' + "9" * 308,
    '"level":' + "9" * 309,
    '"level":-' + "1" * 400,
    '"level":1.7976931348623157e308',
    '"level":1.7976931348623159e308',
    '"level":1e400',
    '"level":1e-400',
    '"level":-0',
    '"level":0.1e+1',
    '"level":1E5',
    '"level":01',
    '"level":1.',
    '"level":.5',
    '"level":+1',
    '"level":1e',
    '"level":0x10',
    '"level":NaN',
    '"level":Infinity',
    '"level":0.' + "3" * 1000,
    '"exp":18446744073709551615',
    '"exp":18446744073709549568',
    '"nbf":0.5',
    '"nbf":1e3',
    '"iat":1e30',
    '"x":' + "[" * 40 + "]" * 40,
    '"x":' + "[" * 99 + "]" * 99,
    '"x":' + "[" * 100 + "]" * 100,
    '"x":' + '{"a":' * 99 + "1" + "}" * 99,
    '"x":' + '{"a":' * 100 + "1" + "}" * 100,
    '"groups":"\\u0061dmin"',
    '"groups":"\\ud83d\\ude00"',
    '"groups":"\\ud800"',
    '"groups":"\\udc00\\ud800"',
    '"groups":"\\u0000admin"',
    '"groups":"admin\\/\\b\\f\\n\\r\\t\\\\\\""',
    '"groups":"\\x61"',
    '"groups":"caf\xc3\xa9"',
    '"groups":"caf\xe9"',
    '"groups":"\xed\xa0\x80"',
    '"groups":"\xc0\x80"',
    '"groups":"\xf4\x90\x80\x80"',
    '"groups":"\xff"',
    '"groups":"\x7f"',
    '"\xc3\xa9":1',
    '"\xe9":1',
    '"":1',
    '"a.b":"admin"',
    '"realm.roles":"admin"',
    '"x":tru',
    '"x":TRUE',
    '"x":nul',
    '"x"',
    '"x":',
    '"x" "y"',
    '"x":1 "y":2',
    '"x":[1 2]',
    '"x":[,1]',
    '"x":/**/1',
)
"""Members that are put behind those of a token's JSON, as text; characters stand for bytes."""
JSON_FRAMES = (
    (" \t\r\n", " \t\r\n"),
    ("\xef\xbb\xbf", ""),
    ("\x0b", ""),
    ("\xc2\xa0", ""),
    ("", "\x0c"),
    ("", "\x00"),
    ("", "{}"),
    ("", "x"),
    ("", "}"),
    ("[", "]"),
    ("//\n", ""),
)
"""What is put before and behind a token's JSON."""
JSON_STYLES = ("escaped", "spaced", "utf-8")
HEADER_MEMBERS = (
    '"kid":"key-a"',
    '"kid":"other"',
    '"alg":"ES256"',
    '"alg":"RS256"',
    '"\\u0061lg":"none"',
    '"x":1,"x":1',
    '"x":{"a":1,"\\u0061":1}',
    '"x":' + "9" * 309,
    '"x":' + "9" * 308,
    '"x":' + "[" * 99 + "]" * 99,
    '"x":' + "[" * 100 + "]" * 100,
    '"jwk":{"kty":"oct","k":"AAAA"}',
    '"jku":"https://nobody.example"',
    '"x5c":["AAAA"]',
    '"cty":"JWT"',
    '"zip":"DEF"',
    '"typ":"JWT"',
    '"typ":{}',
    '"x":"\xe9"',
    '"x":"\\ud800"',
    '"x":01',
)
