"""Fuzz with coverage for guidance, by atheris (libFuzzer): `make fuzz`, or for one target or one input

    python -m tests.fuzz.run                       every target, FUZZ_SECONDS of CPU time each
    python -m tests.fuzz.run tokens --seconds 600  one target
    python -m tests.fuzz.run tokens --play FILE    play one input, and show where it fails
    python -m tests.fuzz.run tokens --keep         then copy what runs new lines into the corpus, smallest first

Each target runs in a process of its own. What it finds of interest goes to `build/fuzz/<target>/corpus`, what breaks
an invariant to `build/fuzz/<target>/finding-*`, and the status is 1 then.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
KEPT = HERE / "corpus"
BUILD = HERE.parents[1] / "build" / "fuzz"
NAMES = (
    "check_request", "policy_documents", "tokens", "certificates", "ambiguity", "settings", "jwks", "request_files",
    "http2", "inventories", "network_files", "facts",
)  # fmt: skip
DEFAULT_SECONDS = 80
"""CPU time of each target: with a dozen of them, a quarter of an hour in all."""
_PATIENCE = 8
"""How many times as long it may take by the clock, on a machine that does other things too."""
_INPUT_SECONDS = 20
_MEMORY_MIB = 2048
_MAX_LEN = 8192


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run what the arguments say; 0 if every invariant held."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description="fuzz with coverage for guidance")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one or more of {', '.join(NAMES)}; default all")
    parser.add_argument(
        "--seconds",
        type=int,
        default=int(os.environ.get("FUZZ_SECONDS") or DEFAULT_SECONDS),
        help=f"CPU time of each target, {DEFAULT_SECONDS} unless FUZZ_SECONDS says otherwise",
    )
    parser.add_argument("--play", type=Path, metavar="FILE", help="only this input, without the fuzzer")
    parser.add_argument("--keep", action="store_true", help="after fuzzing, keep what runs new lines")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.targets or list(NAMES)
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"no target `{unknown[0]}`: there are {', '.join(NAMES)}")
    if given.play is not None:
        return _play(names[0], given.play)
    if given.inside:
        return _fuzz(names[0], given.seconds)
    return _run_all(names, given.seconds, keep=given.keep)


def _play(name: str, file: Path) -> int:
    from tests.fuzz.targets import TARGETS

    _say(f"{name}: {TARGETS[name].invariant}")
    TARGETS[name].hold(file.read_bytes())
    _say("it holds")
    return 0


# --- every target, each in its own process ---


def _run_all(names: list[str], seconds: int, *, keep: bool) -> int:
    failed = []
    for name in names:
        corpus = BUILD / name / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        before = len(list(corpus.iterdir()))
        ok, line = _run_one(name, seconds)
        _say(f"{name:17} {line}, corpus {before} -> {len(list(corpus.iterdir()))}")
        if not ok:
            failed.append(name)
        elif keep:
            _keep(name)
    if failed:
        _say(f"an invariant does not hold: {', '.join(failed)}; see {BUILD}/*/log.txt and finding-*")
    return 1 if failed else 0


def _run_one(name: str, seconds: int) -> tuple[bool, str]:
    """Whether the invariant held, and what was done, in a line."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    log = BUILD / name / "log.txt"
    with log.open("wb") as output:
        status = subprocess.run(
            _command(name, seconds), stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    text = log.read_text(errors="replace")
    executed = re.findall(r"stat::number_of_executed_units:\s*(\d+)", text) or re.findall(
        r"^#(\d+)", text, re.MULTILINE
    )
    coverage = re.findall(r"cov: (\d+) ft: (\d+)", text)
    first, last = (coverage[0], coverage[-1]) if coverage else (("?", "?"), ("?", "?"))
    took = time.monotonic() - started
    what = "holds" if status == 0 else f"FAILED with status {status}"
    return status == 0, (
        f"{what}: {executed[-1] if executed else 0} executions, {spent:.0f} s CPU in {took:.0f} s, "
        f"coverage {first[0]} -> {last[0]}, features {first[1]} -> {last[1]}"
    )


def _command(name: str, seconds: int) -> list[str]:
    return [sys.executable, "-m", "tests.fuzz.run", name, "--seconds", str(seconds), "--inside"]


def _keep(name: str) -> None:
    """Copy the inputs that run what no kept one does."""
    from tests.fuzz.keep import keep
    from tests.fuzz.targets import TARGETS

    _say(f"{name:17} {keep(TARGETS[name], (BUILD / name / 'corpus').iterdir(), KEPT / name)} inputs kept")


# --- one target, under libFuzzer ---


def _fuzz(name: str, seconds: int) -> int:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["zta_authz"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.target import MAX_BYTES

    target = TARGETS[name]
    folder = BUILD / name
    seeds = folder / "seeds"
    seeds.mkdir(parents=True, exist_ok=True)
    for label, data in target.seeds().items():
        (seeds / label).write_bytes(data[:MAX_BYTES])
    words = folder / "words.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    options = [f"-timeout={_INPUT_SECONDS}", f"-rss_limit_mb={_MEMORY_MIB}", f"-artifact_prefix={folder}/finding-"]
    options += [f"-max_total_time={seconds * _PATIENCE}", f"-max_len={_MAX_LEN}"]
    options += [f"-dict={words}"] if target.words else []
    options += ["-print_final_stats=1", str(folder / "corpus"), str(seeds)]
    options += [str(KEPT / name)] if (KEPT / name).is_dir() else []

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if target.within is None or random.random() < 0.3:
            changed: bytes = atheris.Mutate(data, max_size)
            return changed
        return target.within(data, random, lambda part: atheris.Mutate(part, len(part) + 64))[:max_size]

    executed = 0

    def hold(data: bytes) -> None:
        nonlocal executed
        target.hold(data)
        executed += 1
        if time.process_time() > seconds:
            _say(f"stat::number_of_executed_units: {executed}")
            os._exit(0)  # what libFuzzer found is in its folder already

    more = {} if target.within is None else {"custom_mutator": mutate}
    atheris.Setup([sys.argv[0], *options], hold, **more)
    atheris.Fuzz()
    return 0


def _escaped(word: bytes) -> str:
    return "".join(chr(byte) if byte < 0x80 and chr(byte).isalnum() else f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
