"""Sends the requests of the HatShop demo through a real Envoy and a real zta-authz, then keeps serving.

    python envoy/demo/run.py [--once]

`--once` exits after the table. The exit status is 0 only if every result is as expected. `DEMO_PORT` sets Envoy's port
(default: a free one), `DEMO_DIR` sets the directory of all generated files (default: `.run`). Ctrl-C and SIGTERM stop
all processes; if this program is killed, the kernel ends its children.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

REPOSITORY = Path(__file__).resolve().parents[2]
if __package__ in {None, ""}:  # run as a file: import from the repository, not from this directory
    sys.path[0] = str(REPOSITORY)

from rich.console import Console  # noqa: E402 after the path is set

from envoy.demo.access import ACCESS_LOG  # noqa: E402
from envoy.demo.processes import ProcessError  # noqa: E402
from envoy.demo.report import MIN_WIDTH, commands, reasons, table  # noqa: E402
from envoy.demo.row_runner import run_row  # noqa: E402
from envoy.demo.spans import SpanFile  # noqa: E402
from envoy.demo.stack import StackOptions, remove_stale_sockets, running  # noqa: E402
from envoy.demo.story import EXPLAINED, STORY  # noqa: E402
from envoy.demo.trace import SPANS  # noqa: E402
from envoy.demo.why import explanations, request_file  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from envoy.demo.stack import Stack

PORT_VARIABLE = "DEMO_PORT"
DIRECTORY_VARIABLE = "DEMO_DIR"
_MARKER = ".zta-demo"


class DemoError(RuntimeError):
    """The demo can't start. The message has the reason and the remedy."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def workspace(directory: Path) -> Iterator[Path]:
    """Lock `directory` for one demo at a time, and empty it of files of earlier demos.

    Raises DemoError if another demo runs, or if the directory has other files.
    """
    if directory.exists() and any(directory.iterdir()) and not (directory / _MARKER).exists():
        raise DemoError(
            f"{directory} has files that the demo did not create; choose another directory with {DIRECTORY_VARIABLE}"
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    with (directory / _MARKER).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DemoError(
                f"another demo is running in {directory}; stop it, or choose another one with {DIRECTORY_VARIABLE}"
            ) from None
        remove_stale_sockets(directory)
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != _MARKER:
                entry.unlink()
        yield directory


def _port() -> int:
    text = os.environ.get(PORT_VARIABLE, "0")
    if not text.isdecimal() or int(text) > 65535:
        raise DemoError(
            f"{PORT_VARIABLE} is `{text}`, which is not a port: write a number up to 65535, or 0 for a free port"
        )
    return int(text)


def _traced(port: int, spans: SpanFile) -> StackOptions:
    """Return options that send the spans of Envoy and zta-authz to the demo's collector."""
    return StackOptions(
        port=port,
        administrator=True,
        collector_port=spans.port,
        settings={"tracing": {"otlp": {"endpoint": spans.endpoint}, "keep": ["denials", "errors"]}},
    )


def _print_results(console: Console, stack: Stack) -> bool:
    results = [run_row(stack, row) for row in STORY]
    console.print(table(results, console.width))
    wrong = sum(bool(row_result.faults) for row_result in results)
    console.print(f"{len(results) - wrong} of {len(results)} as expected\n", style="red" if wrong else "green")
    console.print(reasons(explanations(stack.layout, stack.config, EXPLAINED)))
    return not wrong


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _serve(console: Console, stack: Stack) -> None:
    console.print(f"\nServing on https://localhost:{stack.port} until Ctrl-C. Try, in {Path.cwd()}:\n")
    for what, command in commands(stack.port, stack.layout, Path.cwd()):
        console.print(f"# {what}", style="dim")
        sys.stdout.write(f"{command}\n")  # without rich, which would wrap commands
    sys.stdout.write(f"\nThe policies: {_short(stack.layout.policies)}\n")
    example = f"--config {_short(stack.config)} --request {_short(request_file(stack.layout, EXPLAINED[0]))}"
    sys.stdout.write(f"More about a decision: .venv/bin/zta-authz explain {example}\n")
    sys.stdout.write("How to change a policy: docs/getting-started.md\n")
    sys.stdout.write("The last trace: .venv/bin/python -m envoy.demo.trace\n")
    sys.stdout.write(f"The decision log: {_short(stack.decisions)}\n")
    sys.stdout.write(f"Who asked for access, and who approved: {_short(stack.layout.root / ACCESS_LOG)}\n")
    sys.stdout.flush()
    while True:
        stack.authz.check()
        stack.envoy.child.check()
        time.sleep(0.5)


def run(*, once: bool) -> int:
    """Run the demo. Returns 0 only if every result is as expected."""
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else MIN_WIDTH)
    good = False
    try:
        port = _port()
        directory = Path(os.environ.get(DIRECTORY_VARIABLE, REPOSITORY / ".run")).absolute()
        with (
            workspace(directory) as root,
            SpanFile(root / SPANS) as spans,
            running(root, _traced(port, spans)) as stack,
        ):
            (root / "port").write_text(str(stack.port))
            good = _print_results(console, stack)
            if not once:
                _serve(console, stack)
    except (DemoError, ProcessError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
    return 0 if good else 1


def main() -> int:
    """Parse the command line and run the demo."""
    parser = argparse.ArgumentParser(description="Run the HatShop demo with a real Envoy and a real zta-authz.")
    parser.add_argument("--once", action="store_true", help="exit after the table")
    arguments = parser.parse_args()
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # includes SIGINT, which shells ignore for background jobs
        signal.signal(number, _stop)
    return run(once=arguments.once)


if __name__ == "__main__":
    sys.exit(main())
