"""How log lines look, what they all carry, and how many of a kind there may be.

A line is an event, which is a constant name, and fields. For machines it is one object of JSON; for people at a terminal it
is one line of text, lightly coloured. Fields may hold what clients sent. So they are bounded in length, nothing in them can
end a line or reach a terminal as anything but characters, and one event can't fill the disk.
"""

import json
import logging
import math
import os
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

from . import tracing

connection_id: ContextVar[int | None] = ContextVar("connection_id", default=None)
"""Set while something is done for a client: every line carries its connection's id."""

# What Python puts into a record; the rest are the fields that a line was logged with (`extra=`).
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message", "taskName"}
# What else stands in an object of JSON. No field has one of these names; a test sees to it.
RESERVED = frozenset({"time", "level", "event", "logger", "process", "exception"})

TEXT_CHARS_MAX = 500
ITEMS_MAX = 100
EXCEPTION_CHARS_MAX = 8000

# So many lines of one event a second, once as many as may come in that many seconds have come.
LINES_PER_S_MAX = 100.0
BURST_S = 20.0

_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


class JsonFormatter(logging.Formatter):
    """One object a line. Nothing but ASCII: whatever reads it, no character is anything but that."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "event": _cut(record.getMessage()),
            "logger": record.name,
            "process": record.process,
            **{name: _json_value(value) for name, value in _fields(record)},
        }
        if trouble := _exception(record):
            line["exception"] = trouble
        return json.dumps(line, separators=(",", ":"))


class TextFormatter(logging.Formatter):
    """Time, level, event, and its fields as `name=value`.

    Args:
        coloured: Whether it is for a terminal.
    """

    def __init__(self, *, coloured: bool = False) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname
        line = " ".join(
            [
                self._paint("2", self.formatTime(record)),
                self._paint(_COLOURS.get(level), f"{level:<8}"),
                self._paint("1", _printable(_cut(record.getMessage()))),
                *(f"{name}={_text_value(value)}" for name, value in _fields(record)),
            ]
        )
        # Indented: nothing in an exception's text looks like a line of its own.
        trouble = (f"\n  {_printable(part)}" for part in _exception(record).splitlines())
        return line + "".join(trouble)

    def _paint(self, colour: str | None, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured and colour else text


class Context(logging.Filter):
    """Adds whose work a line is about: the connection's id, and that of the trace."""

    def filter(self, record: logging.LogRecord) -> bool:
        connection = connection_id.get()
        if connection is not None and not hasattr(record, "connection"):
            record.connection = connection
        span = tracing.current.get()
        if span is not None:
            record.trace = span.trace
        return True


class Pace(logging.Filter):
    """Holds back lines of an event of which there are too many; the next one that isn't says how many those were.

    Args:
        lines_per_s_max: Of one event.
    """

    def __init__(self, lines_per_s_max: float) -> None:
        super().__init__()
        self._rate = lines_per_s_max
        self._burst = max(1.0, lines_per_s_max * BURST_S)
        # Of each event: how many may come now, as of when, and how many were held back.
        self._of: dict[str, tuple[float, float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.CRITICAL:
            return True
        # What libraries log may have anything in it.
        key = record.msg if record.name.partition(".")[0] in OURS else record.name
        left, at, withheld = self._of.get(key, (self._burst, record.created, 0))
        left = min(self._burst, left + max(0.0, record.created - at) * self._rate)
        if left < 1:
            self._of[key] = (left, record.created, withheld + 1)
            return False
        self._of[key] = (left - 1, record.created, 0)
        if withheld:
            record.withheld = withheld
        return True


class _WithoutQueries(logging.Filter):
    """Takes the queries out of paths that servers log: there may be a token in them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_without_query(one) for one in record.args)
        return True


OURS = ("crdt_sync", "persistence", "auth")

_without_queries = _WithoutQueries()


def configure(level: str, form: str = "auto", *, lines_per_s_max: float = LINES_PER_S_MAX) -> None:
    """Log to standard error from `level` on; libraries from WARNING on.

    Args:
        level: Name of a level.
        form: `json`, `text`, or `auto`: text at a terminal, JSON elsewhere.
        lines_per_s_max: See `Pace`.
    """
    handler = logging.StreamHandler()
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter(coloured=coloured))
    handler.addFilter(Pace(lines_per_s_max))
    handler.addFilter(Context())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # It warns of every malformed request, of which there may be thousands a second; `limits` counts them.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    # It complains about every attempt while its collector is away; `otlp` says so once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    for package in OURS:
        logging.getLogger(package).setLevel(level)


def for_people(form: str) -> bool:
    """Whether somebody reads along at a terminal, given the setting for the form of lines."""
    return form != "json" and sys.stderr.isatty()


def hide_queries() -> None:
    """Have uvicorn, however it is run and configured, log paths without what follows the `?`."""
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(_without_queries)


def _without_query(value: object) -> object:
    if not isinstance(value, str) or "?" not in value:
        return value
    return value.partition("?")[0] + "?***"


def _fields(record: logging.LogRecord) -> list[tuple[str, object]]:
    return [(name, value) for name, value in record.__dict__.items() if name not in _STANDARD]


def _json_value(value: object) -> object:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return [_json_value(one) for one in _first(value)]
    return _cut(str(value))


def _text_value(value: object) -> str:
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_text_value(one) for one in _first(value))}]"
    return repr(_cut(str(value)))


def _first(items: list[object] | tuple[object, ...]) -> list[object]:
    more = len(items) - ITEMS_MAX
    return [*items[:ITEMS_MAX], *([f"… and {more} more"] if more > 0 else [])]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}… ({len(text)} characters)"


def _printable(text: str) -> str:
    """The text, with what isn't printable as Python writes it in strings."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _exception(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    text = logging.Formatter().formatException(record.exc_info)
    half = EXCEPTION_CHARS_MAX // 2
    return text if len(text) <= EXCEPTION_CHARS_MAX else f"{text[:half]}\n…\n{text[-half:]}"
