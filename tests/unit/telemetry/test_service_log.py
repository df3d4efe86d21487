"""The service's log: one JSON object per line, whatever is logged."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from zta_authz.telemetry.service_log import JsonLines, TextLines, configure_logging

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def restored_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def line(**fields: Any) -> dict[str, Any]:
    record = logging.makeLogRecord({"name": "zta", "levelname": "INFO", "created": 0.5, **fields})
    text = JsonLines().format(record)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_a_record_is_one_object_with_time_level_logger_and_message() -> None:
    assert line(msg="loaded %d", args=(3,)) == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "info",
        "logger": "zta",
        "message": "loaded 3",
    }


@pytest.mark.parametrize("text", ['a\n{"level":"x"}', "a\r\x00\x1b[0m", "\u2028\x85", "\udcff"])
def test_no_text_can_break_the_line(text: str) -> None:
    assert line(msg=text)["message"] == text


def test_extra_fields_are_kept_and_replace_no_standard_field() -> None:
    assert line(msg="m", source="a.yaml", level="forged", thing=object)["source"] == "a.yaml"
    assert line(msg="m", level="forged")["level"] == "info"


def test_a_stack_is_a_field() -> None:
    try:
        raise ValueError("wrong")
    except ValueError as error:
        record = line(msg="m", exc_info=(type(error), error, error.__traceback__))
    assert record["stack"].endswith("ValueError: wrong")


def text(**fields: Any) -> str:
    return TextLines().format(logging.makeLogRecord({"name": "zta", "levelname": "INFO", "created": 0.5, **fields}))


def test_a_text_line_has_all_fields() -> None:
    record = {"msg": "taken %d", "args": (3,), "file": "a.yaml", "names": ["a", "b c"], "what": 'say "x"', "none": None}
    assert text(**record) == (
        '1970-01-01T00:00:00.500+00:00 INFO zta: taken 3 file=a.yaml names=["a", "b c"] what="say \\"x\\"" none=null'
    )


@pytest.mark.parametrize("nasty", ["a\n2026 ERROR forged", "a\r\x00\x1b[0m", "\u2028\x85", "\udcff"])
@pytest.mark.parametrize("where", ["msg", "field"])
def test_no_text_can_forge_a_text_line_or_control_the_terminal(nasty: str, where: str) -> None:
    line = text(**({"msg": nasty} if where == "msg" else {"msg": "m", "field": nasty}))
    assert line.isprintable()


def test_a_stack_has_its_own_lines() -> None:
    try:
        raise ValueError("wrong\x1b")
    except ValueError as error:
        first, *others = text(msg="m", exc_info=(type(error), error, error.__traceback__), n=1).split("\n")
    assert first.endswith("zta: m n=1")
    assert others[0].startswith("Traceback")
    assert others[-1] == "ValueError: wrong\\x1b"


@pytest.mark.usefixtures("restored_root")
def test_the_configured_level_and_stream_are_used() -> None:
    stream = io.StringIO()
    configure_logging("warning", stream)
    logging.getLogger("zta_authz.x").info("not this")
    logging.getLogger("zta_authz.x").warning("this")
    assert [json.loads(text)["message"] for text in stream.getvalue().splitlines()] == ["this"]


@pytest.mark.usefixtures("restored_root")
def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging("loud")


def test_pythons_warnings_and_uncaught_exceptions_are_log_lines() -> None:
    program = (
        "import threading, warnings\n"
        "from zta_authz.telemetry.service_log import configure_logging, log_python_warnings_and_exceptions\n"
        "configure_logging(); log_python_warnings_and_exceptions()\n"
        "warnings.warn('old', UserWarning)\n"
        "class Bad:\n    def __del__(self): raise KeyError('unraisable')\n"
        "Bad()\n"
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()\n"
        "raise ValueError('last')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["py.warnings", "python", "python", "python"]
    assert ["KeyError" in lines[1]["stack"], "ZeroDivision" in lines[2]["stack"], "last" in lines[3]["stack"]] == [
        True
    ] * 3
    assert ended.returncode == 1
