"""A reference evaluator of authorization policies: slow, simple, and without code shared with the compiled rules.

It works on the output of `yaml.safe_load`. Every value becomes the regular expression that Istio and Envoy document (or a
loop), every rule is tried in order, and nothing is indexed. An unknown value in strict mode is `None` and never widens
access: an ALLOW does not match, a DENY does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_to_bytes

from zta_authz.model.claims import claim_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from zta_authz.model.identity import Identity
    from zta_authz.model.options import Options
    from zta_authz.model.request import RequestAttributes

Document = dict[str, Any]
RuleId = tuple[str, int]
"""`namespace/name` of a policy, and a rule's number."""

_SEGMENT = r"[A-Za-z0-9\-._~%!$&'()*+,;:@=]"
_SPACED = ("scope", "permission")


@dataclass(frozen=True, slots=True)
class Case:
    """A request with its verified identity and options."""

    request: RequestAttributes
    identity: Identity
    options: Options


def decide(documents: Iterable[Document], case: Case) -> tuple[str, RuleId | None]:
    """`allow` or `deny`, and the rule that decided; None if the default decided."""
    in_force = [document for document in documents if _in_force(document, case.options)]
    in_force.sort(key=lambda document: (_namespace(document, case.options), document["metadata"]["name"]))
    denies = [document for document in in_force if _action(document) == "DENY"]
    allows = [document for document in in_force if _action(document) == "ALLOW"]
    place = _first(denies, case, deny=True)
    if place is not None:
        return "deny", place
    place = _first(allows, case, deny=False)
    if place is not None:
        return "allow", place
    return ("allow" if case.options.default_allow and not allows else "deny"), None


def _action(document: Document) -> str:
    return str(document["spec"].get("action", "ALLOW"))


def _namespace(document: Document, options: Options) -> str:
    return str(document["metadata"].get("namespace", options.workload.namespace))


def _in_force(document: Document, options: Options) -> bool:
    if document["metadata"].get("annotations", {}).get("istio.io/dry-run") == "true":
        return False
    if _namespace(document, options) not in (options.workload.namespace, options.root_namespace):
        return False
    labels = document["spec"].get("selector", {}).get("matchLabels", {})
    return all(options.workload.labels.get(key) == value for key, value in labels.items())


def _first(documents: Sequence[Document], case: Case, *, deny: bool) -> RuleId | None:
    for document in documents:
        namespace = _namespace(document, case.options)
        for number, rule in enumerate(document["spec"].get("rules", ())):
            if rule_holds(rule, case, namespace, deny=deny):
                return f"{namespace}/{document['metadata']['name']}", number
    return None


def rule_holds(rule: Mapping[str, Any], case: Case, namespace: str, *, deny: bool) -> bool:
    """Any of `from`, any of `to`, all of `when`; an absent section matches."""
    parties = (
        [entry["source"] for entry in rule["from"]] if "from" in rule else [{}],
        [entry["operation"] for entry in rule["to"]] if "to" in rule else [{}],
    )
    for section in parties:
        if not any(all(_field_holds(f, vs, case, namespace, deny) for f, vs in party.items()) for party in section):
            return False
    return all(_condition_holds(condition, case, namespace, deny) for condition in rule.get("when", ()))


def _field_holds(field: str, values: list[str], case: Case, namespace: str, deny: bool) -> bool:
    negated = field.startswith("not")
    name = field[3].lower() + field[4:] if negated else field
    key = {
        "principals": "source.principal",
        "namespaces": "source.namespace",
        "serviceAccounts": "source.serviceAccount",
        "trustDomains": "source.trustDomain",
        "requestPrincipals": "request.auth.principal",
        "ipBlocks": "source.ip",
        "remoteIpBlocks": "remote.ip",
        "ports": "destination.port",
    }.get(name, name)
    return _settled(_met(key, values, case, namespace, wide=deny != negated), negated, deny)


def _condition_holds(condition: Mapping[str, Any], case: Case, namespace: str, deny: bool) -> bool:
    key = condition["key"]
    if "values" in condition:
        met = _met(key, condition["values"], case, namespace, wide=deny)
        if not _settled(met, False, deny):
            return False
    if "notValues" in condition:
        met = _met(key, condition["notValues"], case, namespace, wide=not deny)
        if met and deny and case.options.semantics == "strict" and _is_plain_header(key):
            texts = _header_texts(key[len("request.headers[") : -1].lower(), case, True)
            met = None if texts is None else all(_matches_header(condition["notValues"], text) for text in texts)
        return _settled(met, True, deny)
    return True


def _is_plain_header(key: str) -> bool:
    return key.startswith("request.headers[") and key.lower() not in (
        "request.headers[host]",
        "request.headers[:authority]",
    )


def _matches_header(values: list[str], text: str) -> bool:
    return any(value == "*" or _full(_generic(value), text) for value in values)


def _settled(met: bool | None, negated: bool, deny: bool) -> bool:
    if met is None:
        return deny
    return met is not negated


def _met(key: str, values: list[str], case: Case, namespace: str, *, wide: bool) -> bool | None:
    """Whether any value matches what the request has under `key`; None if unknown."""
    if key in ("source.ip", "remote.ip", "destination.ip"):
        return _in_blocks(_address(key, case), values, case, wide)
    if key == "destination.port":
        return any(int(value) == case.request.destination.port for value in values)
    if key == "request.auth.principal":
        return any(_request_principal(value, case) for value in values)
    pattern: Callable[[str], str]
    if key.startswith("request.headers["):
        texts = _header_texts(key[len("request.headers[") : -1].lower(), case, wide)
        if texts is None:
            return None
        return any(_matches_header(values, text) for text in texts)
    if key.startswith("experimental."):
        return any(_metadata(key, value, case) for value in values)
    texts, pattern = _texts(key, case, namespace, wide)
    if key == "source.principal":
        values = [name for value in values for name in _with_aliases(value, case.options)]
    elif key == "source.trustDomain":
        values = [name for value in values for name in _domain_aliases(value, case.options)]
    return any(_full(pattern(value), text) for value in values for text in texts)


def _texts(key: str, case: Case, namespace: str, wide: bool) -> tuple[list[str], Callable[[str], str]]:
    request, peer = case.request, case.identity.peer
    names = list(peer.names) if peer is not None else []
    match key:
        case "source.principal":
            return names, _principal
        case "source.namespace":
            return names, lambda value: f".*/ns/{'.*'.join(map(re.escape, value.split('*')))}/.*"
        case "source.serviceAccount":
            return names, lambda value: _service_account(value, namespace)
        case "source.trustDomain":
            return names, _trust_domain
        case "hosts":
            return hosts_of(case, wide), lambda value: ".*" if value == "*" else _generic(_lower(value))
        case "methods":
            return [request.method], _generic
        case "paths":
            return paths_of(case, wide), _path
        case "connection.sni":
            return [_lower(request.sni)], _generic
    return _claim_texts(key, case, wide and case.options.semantics == "strict"), _generic


def _full(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.DOTALL) is not None


def _lower(text: str) -> str:
    return re.sub("[A-Z]", lambda match: chr(ord(match.group()) + 32), text)


def _generic(value: str) -> str:
    if value == "*":
        return ".+"
    if value.startswith("*"):
        return ".*" + re.escape(value[1:])
    if value.endswith("*"):
        return re.escape(value[:-1]) + ".*"
    return re.escape(value)


def _path(value: str) -> str:
    if "{*}" not in value and "{**}" not in value:
        return _generic(value)
    quoted = re.escape(value).replace(r"\{\*\*\}", f"(?:{_SEGMENT}|/)*")
    return quoted.replace(r"\{\*\}", f"{_SEGMENT}+")


def _principal(value: str) -> str:
    if value == "*":
        return ".+"
    if value.startswith("*"):
        return "spiffe://.*" + re.escape(value[1:])
    return _generic("spiffe://" + value)


def _service_account(value: str, namespace: str) -> str:
    if "/" in value:
        namespace, value = value.split("/")
    return f"spiffe://.+/ns/{re.escape(namespace)}/(.+/|)sa/{re.escape(value)}(/.+)?"


def _trust_domain(value: str) -> str:
    if value == "*":
        return "spiffe://.*"
    return f"spiffe://{'[^/]*'.join(map(re.escape, value.split('*')))}/.*"


def _with_aliases(value: str, options: Options) -> list[str]:
    """A full principal of the mesh's own domain, in each of the mesh's domains."""
    domains = [options.workload.trust_domain, *options.workload.trust_domain_aliases]
    parts = value.split("/")
    if len(parts) != 5 or parts[0] not in ("cluster.local", *domains):
        return [value]
    return ["/".join([domain, *parts[1:]]) for domain in domains]


def _domain_aliases(value: str, options: Options) -> list[str]:
    domains = [options.workload.trust_domain, *options.workload.trust_domain_aliases]
    return domains if value in domains else [value]


def hosts_of(case: Case, wide: bool) -> list[str]:
    """The authority; if a wide reading is the safe one, also without port and trailing dot."""
    host = _lower(case.request.host)
    if not host:
        return []
    if case.options.semantics == "istio" or not wide:
        return [host]
    hosts = [host]
    with_port = re.fullmatch(r"(\[.*\]|[^:]*):([0-9]*)", host)
    bare, port = (with_port[1], f":{with_port[2]}") if with_port else (host, "")
    hosts += [bare, bare.rstrip("."), bare.rstrip(".") + port]
    return hosts


def paths_of(case: Case, wide: bool) -> list[str]:
    """The path without its query; if a wide reading is the safe one, also decoded as UTF-8 and as Latin-1."""
    path = re.split("[?#]", case.request.path, maxsplit=1)[0]
    if case.options.semantics == "istio" or not wide:
        return [path]
    data = unquote_to_bytes(path.encode("utf-8", "surrogateescape"))
    texts = [data.decode("utf-8", "surrogateescape"), unquote(path, "latin-1")]
    return [path, *texts, *(text.rstrip(" ") for text in texts)]


def _header(name: str, case: Case) -> list[str] | None:
    """The forwarded values; None if repeats may have been joined into one."""
    request, changes = case.request, case.identity.changes
    pseudo = {":method": request.method, ":path": request.path, ":scheme": request.scheme}
    pseudo |= {":authority": request.host, "host": request.host}
    if name in pseudo:
        return [pseudo[name]] if pseudo[name] else []
    set_values = [value for header, value in changes.set_headers if header == name]
    if set_values:
        return set_values[:1]
    if name in changes.remove_headers:
        return []
    values = list(request.headers.all(name))
    if case.options.semantics == "strict" and not request.headers.exact and any("," in value for value in values):
        return None
    return values


def _header_texts(name: str, case: Case, wide: bool) -> list[str] | None:
    texts = _header(name, case)
    if texts is None or not (wide and case.options.semantics == "strict"):
        return texts
    for other in _other_spellings(name, case):
        more = _header(other, case)
        if more is None:
            return None
        texts = [*texts, *more]
    return [*texts, *(text.strip(" \t") for text in texts)]  # HTTP/2 forwards blanks around values, HTTP/1 drops them


def _other_spellings(name: str, case: Case) -> list[str]:
    """Headers that CGI, WSGI or PHP applications read as `name`, unless authentication sets or removes it."""
    changes = case.identity.changes
    if name in (*(header for header, _ in changes.set_headers), *changes.remove_headers, "host") or name[0] == ":":
        return []
    folded = re.sub("[^a-z0-9]", "-", name)
    return [o for o in case.request.headers.names() if o != name and re.sub("[^a-z0-9]", "-", o) == folded]


def _claim_texts(key: str, case: Case, wide: bool) -> list[str]:
    path = {"request.auth.audiences": ["aud"], "request.auth.presenter": ["azp"]}.get(key)
    if path is None:
        path = _claim_path(key.removeprefix("request.auth.claims"))
    token = case.identity.token
    value: Any = token.claims if token is not None else None
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    spaced = _SPACED + (token.space_delimited_claims if token is not None else ())
    if isinstance(value, str):
        return [part for part in value.split(" ") if part] if len(path) == 1 and path[0] in spaced else [value]
    items = value if isinstance(value, list) else [value]
    return [
        item if isinstance(item, str) else claim_text(item)
        for item in items
        if isinstance(item, str) or _shows(item, wide)
    ]


def _shows(item: object, wide: bool) -> bool:
    """Whether a value that is not a string is compared as header text."""
    return wide and item is not None


def _claim_path(brackets: str) -> list[str]:
    """One key per bracket; if they don't nest, everything between the first and the last bracket is one key."""
    if re.fullmatch(r"(\[[^\[\]]+\])+", brackets):
        return re.findall(r"\[([^\[\]]+)\]", brackets)
    return [brackets[1:-1]]


def _metadata(key: str, value_: str, case: Case) -> bool:
    filter_name, _, rest = key.removeprefix("experimental.").partition("[")
    metadata = case.request.metadata.get(filter_name)
    value = metadata.get(rest[:-1]) if isinstance(metadata, dict) else None
    if value_.startswith("[") and value_.endswith("]"):
        items = value if isinstance(value, list) else []
        return any(isinstance(item, str) and _full(_generic(value_[1:-1]), item) for item in items)
    return isinstance(value, str) and _full(_generic(value_), value)


def _request_principal(value: str, case: Case) -> bool:
    """Issuer and subject, split at the last `/`; after a leading `*` with a slash the subject is exact."""
    claims = case.identity.token.claims if case.identity.token is not None else {}
    issuer, subject = claims.get("iss"), claims.get("sub")
    if not isinstance(issuer, str) or not isinstance(subject, str):
        return False
    split = re.fullmatch("(.*)/([^/]*)", value, re.DOTALL)
    if value == "*":
        patterns = ".+", ".+"
    elif value.startswith("*"):
        patterns = (_generic(split[1]), re.escape(split[2])) if split else (".+", _generic(value))
    elif value.endswith("*"):
        patterns = (re.escape(split[1]), _generic(split[2])) if split else (_generic(value), ".+")
    else:
        patterns = (re.escape(split[1]), re.escape(split[2])) if split else (re.escape(value), "")
    return _full(patterns[0], issuer) and _full(patterns[1], subject)


def _address(key: str, case: Case) -> str:
    request = case.request
    if key == "destination.ip":
        return request.destination.ip
    hops = case.options.xff_num_trusted_hops
    if key == "source.ip" or (case.options.use_remote_address and hops == 0):
        return request.source.ip
    forwarded = request.headers.all("x-forwarded-for")
    entries = ",".join(forwarded).split(",") if forwarded else []
    entry = entries[-1 - hops].strip(" ") if len(entries) > hops else ""
    if case.options.semantics == "strict" and (forwarded or hops):
        return entry
    return entry if _is_address(entry) else request.source.ip


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _in_blocks(text: str, blocks: list[str], case: Case, wide: bool) -> bool | None:
    strict = case.options.semantics == "strict"
    if not _is_address(text):
        return None if strict else False
    both = wide and strict
    addresses = [ip_address(text), *(_stands_for(text) if both else ())]
    networks = [ip_network(block, strict=False) for block in blocks]
    for network in list(networks) if both else ():
        if str(network.network_address).startswith("::ffff:") and network.prefixlen >= 96:
            tail = int(network.network_address) & 0xFFFFFFFF
            networks.append(ip_network((tail, network.prefixlen - 96)))
    for address in addresses:
        for network in networks:
            bits = network.max_prefixlen - network.prefixlen
            if address.version == network.version and int(address) >> bits == int(network.network_address) >> bits:
                return True
    return False


def _stands_for(text: str) -> list[IPv4Address]:
    """The embedded IPv4 address, by the standard library or, for forms it does not know, by the spelling."""
    address = ip_address(text)
    if address.version == 4:
        return []
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    groups = address.exploded.split(":")
    if groups[:6] in (["0064", "ff9b", *["0000"] * 4], ["0000"] * 6, [*["0000"] * 4, "ffff", "0000"]):
        return [last] if int(address) > 1 else []
    if groups[:3] == ["0064", "ff9b", "0001"]:
        return [last]
    embedded = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
    return [embedded] if embedded else []
