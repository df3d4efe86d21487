"""The Dockerfile, read line by line: there is no engine here to build it with."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest

from tests.k8s.manifests import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: `FROM`, its text on one line, and the name or number of its stage (-1: before the first)."""

    word: str
    text: str
    stage: int


def read(dockerfile: str) -> list[Instruction]:
    """The instructions, with lines joined and here-documents taken along."""
    found: list[Instruction] = []
    lines = iter(dockerfile.splitlines())
    stage = -1
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        text = line
        while text.endswith("\\"):
            text = text[:-1] + next(lines)
        here = re.search(r"<<-?'?(\w+)'?", text)
        while here and not text.endswith(f"\n{here[1]}"):
            text += "\n" + next(lines)
        word, _, rest = text.partition(" ")
        stage += word == "FROM"
        found.append(Instruction(word, rest.strip(), stage))
    return found


def faults(dockerfile: str) -> list[str]:
    """What is wrong with it."""
    instructions = read(dockerfile)
    found = [
        f"{each.word} is not used here" for each in instructions if each.word in ("ADD", "HEALTHCHECK", "MAINTAINER")
    ]
    stages = {each.text.partition(" AS ")[2] for each in instructions if each.word == "FROM"}
    for each in instructions:
        base = each.text.split(" ")[0]
        if each.word == "FROM" and base not in stages | {"scratch"} and not base.endswith("@${BASE_DIGEST}"):
            found.append(f"base {base} is not named by digest")
        if each.word == "ARG" and each.text.startswith("BASE_DIGEST="):
            found.append("the digest has a default, which goes stale")
        if each.word in ("ARG", "ENV") and re.search(r"(?i)password|secret|token", each.text):
            found.append(f"{each.word} holds a secret")
        found += _pip_faults(each.text) if each.word == "RUN" else []
    return found + _last_stage_faults(instructions)


def _pip_faults(text: str) -> list[str]:
    found = []
    for command in re.split(r"&&|\n", text):
        if re.search(r"\bpip\b.* (?:wheel|install) ", command):
            from_here = "--no-index" in command
            if not from_here and not {"--constraint", "--only-binary"} <= set(command.split()):
                found.append("pip fetches what the constraints don't pin, or builds it")
    return found


def _last_stage_faults(instructions: list[Instruction]) -> list[str]:
    last = [each for each in instructions if each.stage == instructions[-1].stage]
    by_word = {each.word: each.text for each in last}
    found = []
    user = by_word.get("USER", "0").partition(":")[0]
    if not user.isdigit() or int(user) < 10000:
        found.append("does not run as a numbered user without rights")
    shells = [word for word in ("ENTRYPOINT", "CMD") if not by_word.get(word, "").startswith("[")]
    found += [f"{word} goes through a shell, which takes the signals" for word in shells]
    if any(each.word == "RUN" and "pip" in each.text and "rm -rf" not in each.text for each in last):
        found.append("installs in the last stage")
    return found


def test_nothing_is_wrong_with_the_image() -> None:
    assert faults(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("written", "broken", "expected"),
    [
        ("bookworm@${BASE_DIGEST}\n", "bookworm\n", "not named by digest"),
        ("ARG BASE_DIGEST\n", "ARG BASE_DIGEST=sha256:0\n", "goes stale"),
        ("USER 65532:65532\n", "", "numbered user"),
        ("USER 65532:65532\n", "USER zta\n", "numbered user"),
        ("USER 65532:65532\n", "USER 0\n", "numbered user"),
        ("STOPSIGNAL SIGTERM\n", "HEALTHCHECK CMD true\n", "HEALTHCHECK"),
        ("--constraint constraints.txt --requirement", "--requirement", "constraints"),
        ("--only-binary :all: --constraint constraints.txt setuptools", "setuptools", "constraints"),
        ('ENTRYPOINT ["/opt/zta-authz/bin/zta-authz"]', "ENTRYPOINT zta-authz", "shell"),
        ("WORKDIR /\n", "ENV API_TOKEN=x\n", "secret"),
        ("COPY zta_authz", "ADD zta_authz", "ADD"),
        ("WORKDIR /\n", "RUN pip install --no-index x\n", "last stage"),
    ],
)
def test_each_fault_of_an_image_is_seen(written: str, broken: str, expected: str) -> None:
    assert written in DOCKERFILE
    assert expected in "\n".join(faults(DOCKERFILE.replace(written, broken)))


def test_it_is_built_in_stages_and_says_what_is_in_it() -> None:
    stages = [each.text.partition(" AS ")[2] for each in read(DOCKERFILE) if each.word == "FROM"]
    assert stages == ["build", "inspect", "sbom", ""]
    assert any(each.word == "RUN" and " inspect > /sbom" in each.text for each in read(DOCKERFILE))


def test_everything_that_is_copied_is_let_in_and_nothing_else() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        name.removeprefix("./")
        for each in read(DOCKERFILE)
        if each.word == "COPY" and "--from" not in each.text
        for name in each.text.split()[:-1]
    }
    assert "*" in ignored
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_it_starts_with_the_settings_that_are_mounted() -> None:
    (command,) = [json.loads(each.text) for each in read(DOCKERFILE) if each.word == "CMD"]
    assert command == ["serve", "--config", "/etc/zta-authz/config/config.yaml"]


def test_the_python_is_one_that_the_project_supports() -> None:
    versions = set(re.findall(r"python:(\d+\.\d+)-slim", DOCKERFILE))
    assert versions == {"3.11"}


def test_it_holds_byte_code_of_itself_and_of_pythons_own_library() -> None:
    """Without it each start compiles everything: the root is read-only, and the base has none."""
    compiled = [each.text for each in read(DOCKERFILE) if "-m compileall" in each.text]
    assert [text.split()[-1] for text in compiled] == ["/opt/zta-authz/lib", "/usr/local/lib/python3.11"]
    assert all("--invalidation-mode unchecked-hash" in text for text in compiled)
