"""Find the containers that run zta-authz, and load their settings and policies as `serve` would."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from zta_authz.administrator.operator_authorization import operator_options
from zta_authz.cli.command_inputs import options_for
from zta_authz.cli.compliance.embedded_text import EmbeddedTexts, embedded_text
from zta_authz.cli.compliance.values import Document, FieldLocation, Value
from zta_authz.errors import Fault, FaultsError
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot
from zta_authz.policy.documents.reader import read_all
from zta_authz.policy.yaml.nodes import read_documents
from zta_authz.policy_sources.files import read_sources
from zta_authz.policy_sources.walk import is_policy_path
from zta_authz.settings import Settings, load_settings, parse_settings
from zta_authz.settings.environment import PREFIX, variable_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from zta_authz.model.options import Options
    from zta_authz.policy.documents.spec import DocumentSet

NAME: Final = "zta-authz"
_ADMINISTER: Final = "administer"
POD_PATHS: Final = {
    "Pod": (),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet", "ReplicationController"), ("spec", "template")
    ),
}
"""The path of the pod template in each kind of workload."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """Inputs of the command line that replace those in manifests: a settings file and policies."""

    config: str = ""
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Authorizer:
    """One zta-authz. `container` and `workload` are None if only settings were given.

    `administers`: it is an administrator, whose policies are compiled as it does, not a decision point.
    `unread` describes the settings and policies that are not among the given files. `config` is the root of the
    settings file, None without one. `variables` are the environment variables of the container.
    """

    workload: Document | None
    container: Value | None
    settings: Settings
    config: Value | None
    variables: Mapping[str, Value]
    snapshot: Snapshot
    documents: DocumentSet
    embedded_texts: EmbeddedTexts
    unread: tuple[tuple[str, Value | None], ...] = field(default=())
    settings_known: bool = True
    """False if settings may come from a file that was not given, so that defaults can't be assumed."""
    administers: bool = False

    def setting(self, *path: str | int) -> FieldLocation:
        """Return the location of a setting: an environment variable, the settings file, or a default."""
        for end in range(len(path), 0, -1):
            variable = self.variables.get(variable_of(path[:end]))
            if variable is not None:
                return variable.location
        name = ".".join(str(step) for step in path)
        value = None if self.config is None else self.config.get(*path)
        if value is None:
            return FieldLocation("", 0, f"settings: {name} (default)")
        return value.location

    def location(self, source: str, line: int, what: str) -> FieldLocation:
        """Return the location of a line of the policies."""
        return self.embedded_texts.location(source, line, what)


def pods_of(documents: Sequence[Document]) -> Iterator[tuple[Document, Value]]:
    """Yield each workload with its pod template (metadata and spec)."""
    for document in documents:
        path = POD_PATHS.get(document.kind)
        pod = None if path is None else document.root.get(*path)
        if pod is not None and pod.get("spec") is not None:
            yield document, pod


def containers_of(pod: Value) -> list[Value]:
    """Return all containers of a pod template."""
    return [*pod.items("spec", "initContainers"), *pod.items("spec", "containers")]


def is_authorizer(container: Value) -> bool:
    """Return whether the container runs zta-authz, by its name or the name of its image."""
    image = container.text("image").partition("@")[0].rpartition("/")[2].partition(":")[0]
    return NAME in (container.text("name"), image)


class AuthorizerReader:
    """Reads the authorizers of an installation. Adds to `faults` what `serve` would refuse."""

    def __init__(
        self, documents: Sequence[Document], lines: Mapping[str, list[str]], given: Overrides, faults: list[Fault]
    ) -> None:
        self._documents = documents
        self._maps = {
            (document.namespace, document.name): document
            for document in documents
            if document.kind == "ConfigMap" and not document.group
        }
        self._lines = lines
        self._given = given
        self._faults = faults

    def read(self) -> list[Authorizer]:
        """Return the authorizers that could be read."""
        authorizers = [
            self._read_authorizer(document, pod, container)
            for document, pod in pods_of(self._documents)
            for container in containers_of(pod)
            if is_authorizer(container)
        ]
        if not authorizers and (self._given.config or self._given.policies):
            authorizers = [self._read_authorizer(None, None, None)]
        return [authorizer for authorizer in authorizers if authorizer is not None]

    def _read_authorizer(
        self, workload: Document | None, pod: Value | None, container: Value | None
    ) -> Authorizer | None:
        embedded_texts = EmbeddedTexts()
        unread: list[tuple[str, Value | None]] = []
        mounts = Mounts(self._maps, workload, pod, container)
        variables = {} if container is None else self._variables(container, unread)
        environ = {name: _value_of(variable, workload) for name, variable in variables.items()}
        try:
            settings, config = self._settings(container, mounts, environ, embedded_texts, unread)
            settings_known = not unread
            sources = self._policies(settings, mounts, embedded_texts, unread)
            options = options_for(settings, settings.policies)  # the paths in the settings are paths in the container
            administers = _ADMINISTER in _words(container)
            options = operator_options(options) if administers else options
            snapshot = compile_snapshot(sources, options)
        except FaultsError as error:
            self._faults += embedded_texts.faults(error.faults)
            return None
        documents = _documents_of(sources, options)
        return Authorizer(
            workload,
            container,
            settings,
            config,
            variables,
            snapshot,
            documents,
            embedded_texts,
            tuple(unread),
            settings_known,
            administers,
        )

    def _variables(self, container: Value, unread: list[tuple[str, Value | None]]) -> dict[str, Value]:
        variables = {}
        for variable in container.items("env"):
            name, value = variable.text("name"), variable.get("value")
            if not name.startswith(PREFIX):
                continue
            known = value is not None or variable.text("valueFrom", "fieldRef", "fieldPath") == "metadata.namespace"
            if known:
                variables[name] = variable
            else:
                unread.append((f"environment variable {name}: its value is not in the manifest", variable))
        unread += [("environment variables from `envFrom`", source) for source in container.items("envFrom")]
        return variables

    def _settings(
        self,
        container: Value | None,
        mounts: Mounts,
        environ: Mapping[str, str],
        embedded_texts: EmbeddedTexts,
        unread: list[tuple[str, Value | None]],
    ) -> tuple[Settings, Value | None]:
        if self._given.config:
            settings = load_settings(self._given.config, environ)
            texts = read_sources([self._given.config], [])
            return settings, _config(self._given.config, texts[0].text, 0) if texts else None
        if container is None:
            unread.append(("the settings: use --config", None))
            return Settings(), None
        if not container.items("command") and not container.items("args"):
            unread.append(("the settings: the container has no `args`, so the image chooses the file", container))
            return Settings(), None
        path = _config_argument(container)
        if not path:
            return load_settings(None, environ), None  # the container uses defaults and variables only
        held = mounts.file(path)
        if held is None:
            unread.append(
                (f"settings file {path}: its ConfigMap is not among the manifests; add it or use --config", container)
            )
            return Settings(), None
        embedded = embedded_texts.add(embedded_text(*held, self._lines))
        settings = parse_settings(embedded.name, embedded.text, environ)
        owner = f'{held[0].root.owner}: data["{held[1]}"]'
        return settings, _config(embedded.shown_source, embedded.text, embedded.shift, owner)

    def _policies(
        self, settings: Settings, mounts: Mounts, embedded_texts: EmbeddedTexts, unread: list[tuple[str, Value | None]]
    ) -> list[SourceText]:
        if self._given.policies:
            faults: list[Fault] = []
            sources = read_sources(self._given.policies, faults)
            if faults:
                raise FaultsError(faults)
            return sources
        sources = []
        for path in settings.policies:
            held = mounts.files(path)
            unknown = mounts.unknown(path) if held else [path]
            unread += [
                (f"policies in {path}: no ConfigMap of the manifests has them; add it or use --policies", None)
                for path in unknown
            ]
            for file in held:
                embedded = embedded_texts.add(embedded_text(*file, self._lines))
                sources.append(SourceText(embedded.name, embedded.text))
        return sources


class Mounts:
    """The files of ConfigMaps that are mounted in a container, by path."""

    def __init__(
        self,
        maps: Mapping[tuple[str, str], Document],
        workload: Document | None,
        pod: Value | None,
        container: Value | None,
    ) -> None:
        self._maps = maps
        self._namespace = "" if workload is None else workload.namespace
        volumes = {} if pod is None else {volume.text("name"): volume for volume in pod.items("spec", "volumes")}
        self._files: dict[str, tuple[Document, str, Value]] = {}
        self._unknown: list[str] = []
        mounts = [] if container is None else container.items("volumeMounts")
        for mount in sorted(
            mounts, key=lambda mount: mount.text("mountPath")
        ):  # outer mounts first: inner mounts hide their files
            self._add(mount.text("mountPath").rstrip("/"), mount.text("subPath"), volumes.get(mount.text("name")))

    def _add(self, location: str, sub_path: str, volume: Value | None) -> None:
        self._files = {name: held for name, held in self._files.items() if not _is_below(name, location)}
        held = None if volume is None else self._volume_files(volume)
        if held is None:
            self._unknown.append(location)
            return
        for name, file in held.items():
            if not sub_path:
                self._files[f"{location}/{name}"] = file
            elif _is_below(name, sub_path):
                self._files[location + name[len(sub_path) :]] = file

    def files(self, path: str) -> list[tuple[Document, str, Value]]:
        """Return the policy files at or below `path`, as `serve` would find them."""
        folder = path.rstrip("/")
        if folder in self._files:
            return [self._files[folder]]
        below = [
            (name[len(folder) + 1 :].split("/"), held)
            for name, held in self._files.items()
            if name.startswith(f"{folder}/")
        ]
        return [held for names, held in sorted(below, key=lambda item: item[0]) if is_policy_path(names)]

    def unknown(self, path: str) -> list[str]:
        """Return the mounts at or below `path` whose content is not in the manifests."""
        return [location for location in self._unknown if _is_below(location, path.rstrip("/"))]

    def file(self, path: str) -> tuple[Document, str, Value] | None:
        """Return one mounted file: its ConfigMap, key and value."""
        return self._files.get(path)

    def _volume_files(self, volume: Value) -> dict[str, tuple[Document, str, Value]] | None:
        """Return the files of a volume by name; None if they are unknown."""
        holder = self._maps.get((self._namespace, volume.text("configMap", "name")))
        if holder is None:
            return None
        data = {key: (holder, key, value) for key, value in holder.root.fields("data").items()}
        items = volume.items("configMap", "items")
        if not items:
            return data
        return {item.text("path"): data[item.text("key")] for item in items if item.text("key") in data}


def _is_below(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}/")


def _value_of(variable: Value, workload: Document | None) -> str:
    if variable.get("value") is not None:
        return variable.text("value")
    return "" if workload is None else workload.namespace


def _words(container: Value | None) -> list[str]:
    """Return the command and the arguments of a container."""
    return [] if container is None else [w.text() for field in ("command", "args") for w in container.items(field)]


def _config_argument(container: Value) -> str:
    words = _words(container)
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == "--config":
            return after
        if word.startswith("--config="):
            return word.partition("=")[2]
    return ""


def _config(source: str, text: str, shift: int, owner: str = "settings") -> Value | None:
    roots = read_documents(source, text, [])
    return Value(source, owner, "", roots[0], shift) if roots else None


def _documents_of(sources: Sequence[SourceText], options: Options) -> DocumentSet:
    """Read the documents other than rules: issuers, bundles, revocations. The sources have no faults here."""
    texts = ((source.name, source.text) for source in sources)
    namespace = options.document_namespace or options.workload.namespace
    return read_all(texts, namespace, [], [], lambda _: None)
