"""How log lines look: time, level, event, and its fields as `name=value`."""

import logging

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message"}


class FieldFormatter(logging.Formatter):
    """Appends the fields that a line was logged with (`extra=`) to its event."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-8s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides logging's
        fields = [
            f"{name}={value!r}" if isinstance(value, str) else f"{name}={value}"
            for name, value in record.__dict__.items()
            if name not in _STANDARD
        ]
        return " ".join([super().formatMessage(record), *fields])


class _WithoutQueries(logging.Filter):
    """Takes the queries out of paths that servers log: there may be a token in them."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_without_query(one) for one in record.args)
        return True


_without_queries = _WithoutQueries()


def hide_queries() -> None:
    """Have uvicorn, however it is run and configured, log paths without what follows the `?`."""
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(_without_queries)


def _without_query(value: object) -> object:
    if not isinstance(value, str) or "?" not in value:
        return value
    return value.partition("?")[0] + "?***"


def configure(level: str) -> None:
    """Log to standard error from `level` on; libraries from WARNING on."""
    handler = logging.StreamHandler()
    handler.setFormatter(FieldFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # It warns of every malformed request, of which there may be thousands a second; `limits` counts them.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    for package in ("crdt_sync", "persistence", "auth"):
        logging.getLogger(package).setLevel(level)
