import ast
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crdt_sync import logs, tracing
from crdt_sync.logs import ITEMS_MAX, RESERVED, TEXT_CHARS_MAX, JsonFormatter, Pace, TextFormatter, connection_id

ROOT = Path(__file__).parents[2]
# What a terminal, a reader of lines or one of JSON could take for something else.
HOSTILE = 'trip\n2026-01-01 ERROR forged\r\x1b[2J\x1b]0;x\x07\x9b31m\u2028\u202e\x00"}\ud800'


def record(event: str = "connection_opened", level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "crdt_sync.sync", "levelno": level, "levelname": logging.getLevelName(level), "msg": event, **fields}
    )
    made.created, made.process = 1767225600.1239, 7
    return made


def as_json(**fields: object) -> dict[str, Any]:
    line = JsonFormatter().format(record(**fields))  # type: ignore[arg-type]
    assert line.isascii()
    assert "\n" not in line
    read: dict[str, Any] = json.loads(line)
    return read


def as_text(**fields: object) -> str:
    line = TextFormatter().format(record(**fields))  # type: ignore[arg-type]
    return line.partition(" ")[2].partition(" ")[2]  # without its time, which is local


def failure(text: str) -> Any:
    try:
        raise ValueError(text)
    except ValueError:
        return sys.exc_info()


# ------------------------------------------------------------------------------------------------- forms


def test_a_line_for_machines_is_an_object_with_the_time_in_utc() -> None:
    assert as_json(room="trip-1", connection=3, after_s=0.5, user=None, rooms=["a", "b"]) == {
        "time": "2026-01-01T00:00:00.123Z",
        "level": "INFO",
        "event": "connection_opened",
        "logger": "crdt_sync.sync",
        "process": 7,
        "room": "trip-1",
        "connection": 3,
        "after_s": 0.5,
        "user": None,
        "rooms": ["a", "b"],
    }


def test_a_line_for_people_is_the_event_and_its_fields() -> None:
    assert as_text(room="trip-1", connection=3, rooms=["a", 2]) == (
        "INFO     connection_opened room='trip-1' connection=3 rooms=['a', 2]"
    )


def test_what_json_has_no_number_for_is_text() -> None:
    assert as_json(cpu=float("nan"), digest=b"\x00")["cpu"] == "nan"


def test_an_exception_is_one_string_of_the_object() -> None:
    line = as_json(exc_info=failure("a\nb"))

    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: a\nb")


def test_colours_are_for_terminals() -> None:
    line = TextFormatter(coloured=True).format(record(level=logging.ERROR, room="trip-1"))

    assert "\x1b[31mERROR   \x1b[0m \x1b[1mconnection_opened\x1b[0m room='trip-1'" in line


# ------------------------------------------------------------------------------------------------- what clients send


def test_nothing_in_a_field_ends_a_line_or_reaches_a_terminal() -> None:
    line = as_text(room=HOSTILE, rooms=[HOSTILE], error=ValueError(HOSTILE))

    assert line.isprintable()
    assert line.startswith(r"INFO     connection_opened room='trip\n2026")
    assert as_json(room=HOSTILE)["room"] == HOSTILE


def test_nothing_in_what_a_library_says_does() -> None:
    assert as_text(event=HOSTILE).isprintable()
    assert as_json(event=HOSTILE)["event"] == HOSTILE


def test_nothing_in_an_exception_looks_like_a_line_of_its_own() -> None:
    lines = as_text(exc_info=failure(HOSTILE)).split("\n")

    assert all(line.isprintable() for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])
    assert "  2026-01-01 ERROR forged" in lines


def test_fields_are_bounded_in_length() -> None:
    cut = f"{'x' * TEXT_CHARS_MAX}… (1000000 characters)"
    assert as_json(room="x" * 1_000_000)["room"] == cut
    assert as_text(room="x" * 1_000_000).endswith(f"room='{cut}'")
    assert as_json(event="x" * 1_000_000)["event"] == cut

    rooms = as_json(rooms=["x" * 1000] * (ITEMS_MAX + 5))["rooms"]
    assert (len(rooms), len(rooms[0]), rooms[-1]) == (ITEMS_MAX + 1, len(cut) - 3, "… and 5 more")
    assert len(as_text(rooms=["x" * 1000] * 100_000)) < 60_000

    assert len(as_json(exc_info=failure("x" * 1_000_000))["exception"]) < 10_000


# ------------------------------------------------------------------------------------------------- context


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    log = logging.getLogger("crdt_sync.test_logs")
    log.propagate = False
    log.setLevel(logging.DEBUG)
    yield log
    log.handlers.clear()


def listen(log: logging.Logger, *filters: logging.Filter) -> io.StringIO:
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    handler.setFormatter(JsonFormatter())
    for one in filters:
        handler.addFilter(one)
    log.addHandler(handler)
    return heard


def lines(heard: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in heard.getvalue().splitlines()]


class Traced:
    trace = "a" * 32


def test_lines_within_a_connection_and_a_trace_say_so(log: logging.Logger) -> None:
    heard = listen(log, logs.Context())
    ids = connection_id.set(5), tracing.current.set(Traced())  # type: ignore[arg-type]
    try:
        log.info("within")
        log.info("another", extra={"connection": 6})
    finally:
        connection_id.reset(ids[0])
        tracing.current.reset(ids[1])
    log.info("outside")

    seen = [(line["event"], line.get("connection"), line.get("trace")) for line in lines(heard)]
    assert seen == [("within", 5, "a" * 32), ("another", 6, "a" * 32), ("outside", None, None)]


# ------------------------------------------------------------------------------------------------- how many


def test_of_too_many_lines_of_an_event_the_next_says_how_many_there_were() -> None:
    pace = Pace(10)
    passed = []
    for index in range(2000):
        one = record("connection_refused")
        one.created = index / 1000  # a thousand a second, for two seconds
        if pace.filter(one):
            passed.append(vars(one).get("withheld", 0))

    assert 218 <= len(passed) <= 221, "200 at once, and 10 a second"
    assert passed[:200] == [0] * 200
    assert len(passed) + sum(passed) > 1890, "all are accounted for, but for the last tenth of a second"


def test_one_event_takes_no_lines_from_another_and_the_gravest_are_never_withheld() -> None:
    pace = Pace(0.05)

    def passes(event: str, level: int = logging.INFO, name: str = "crdt_sync.sync") -> bool:
        one = record(event, level)
        one.name = name
        return pace.filter(one)

    assert [passes("connection_refused"), passes("connection_refused"), passes("token_refused")] == [True, False, True]
    assert [passes("document_broken", logging.ERROR), passes("document_broken", logging.ERROR)] == [True, False]
    assert [passes("task_failed", logging.CRITICAL), passes("task_failed", logging.CRITICAL)] == [True, True]
    # What libraries say has other people's words in it: those of one logger are one kind.
    assert [passes(f"bad request {number}", name="uvicorn.error") for number in range(3)] == [True, False, False]
    assert len(pace._of) == 4


# ------------------------------------------------------------------------------------------------- configuring


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def root() -> Iterator[None]:
    """Python's logging as it was, afterwards."""
    known = [logging.getLogger(name) for name in ("", "uvicorn.error", "opentelemetry", *logs.OURS)]
    before = [(one, one.level, one.handlers[:]) for one in known]
    yield
    for one, level, handlers in before:
        one.setLevel(level)
        one.handlers[:] = handlers


@pytest.mark.parametrize(
    ("form", "stream", "no_color", "starts"),
    [
        ("auto", io.StringIO, "", '{"time":"'),
        ("auto", Terminal, "", "\x1b[2m20"),
        ("auto", Terminal, "1", "20"),
        ("text", io.StringIO, "", "20"),
        ("json", Terminal, "", '{"time":"'),
    ],
)
@pytest.mark.usefixtures("root")
def test_lines_suit_who_reads_them(
    form: str, stream: type[io.StringIO], no_color: str, starts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = stream()
    monkeypatch.setattr(sys, "stderr", error)
    monkeypatch.setenv("NO_COLOR", no_color)

    logs.configure("INFO", form)
    logging.getLogger("crdt_sync.sync").info("connection_opened")
    logging.getLogger("some.library").info("not for anybody")

    [line] = error.getvalue().splitlines()
    assert line.startswith(starts)
    assert logs.for_people(form) == (stream is Terminal and form != "json")


# ------------------------------------------------------------------------------------------------- what the code logs


def logged() -> dict[str, set[str]]:
    """The events of the code, and their levels."""
    found: dict[str, set[str]] = {}
    for package in logs.OURS:
        for path in (ROOT / package).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and is_log(call.func):
                    level, event = said(call, call.func.attr, path)
                    found.setdefault(event, set()).add(level)
    return found


def is_log(called: ast.Attribute) -> bool:
    methods = ("debug", "info", "warning", "error", "exception", "critical", "log")
    return isinstance(called.value, ast.Name) and called.value.id == "log" and called.attr in methods


def said(call: ast.Call, method: str, path: Path) -> tuple[str, str]:
    named = call.args[1 if method == "log" else 0]
    assert isinstance(named, ast.Constant), f"{path}:{call.lineno}: events are constant names"
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", named.value), f"{path}:{call.lineno}: {named.value}"
    # One of several, by what has happened.
    level = "SEVERAL" if method == "log" else {"exception": "error"}.get(method, method).upper()
    return level, named.value


def test_every_event_stands_in_the_table_of_the_page_with_its_levels() -> None:
    page = (ROOT / "docs/how-to/read-logs-and-traces.md").read_text()
    table = re.findall(r"^\| `([a-z_]+)` \| ([A-Z, ]+) \| (.{20,}) \|$", page, re.MULTILINE)
    listed = {event: set(levels.split(", ")) for event, levels, _ in table}

    events = logged()

    assert [event for event, _, _ in table] == sorted(events)
    for event, levels in events.items():
        assert listed[event] == levels or (levels == {"SEVERAL"} and len(listed[event]) > 1), event


def test_no_field_has_a_name_that_means_something_else() -> None:
    for package in logs.OURS:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
                    names = {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
                    assert not names & (RESERVED | {"trace", "withheld"}), path
