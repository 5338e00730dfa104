"""What a process counts of its own work, and how that is told to Prometheus.

Owns the instruments, the names and what they mean. Instruments are plain numbers, since some of them are touched with
every message; what can be read from the parts when somebody asks (connections, rooms, what waits) isn't counted here
but handed to `snapshot`. A snapshot is plain data, so that one process can tell of all that serve a port.

Nothing here names a room or a user. The registry is made for each answer: the global one may be an application's own.
"""

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .protocol import KINDS

PREFIX = "crdt_sync_"
SAMPLE_INTERVAL_S = 0.05
# In the place of a worker's number, for what is about all of them.
ALL_WORKERS = "all"
# Other codes are counted as `other`: what a client closes with can be any number.
_CODES = frozenset({1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, *range(4400, 4500)})

# Told of from the start, so that a rate knows of the first.
_USUAL_CODES = (1000, 1001, 1005, 1006, 1011, 1012, 1013)
_OTHER = "other"

# Seconds. What takes one turn of the loop, up to what people wait for.
QUICK_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
# What waits for the store, Redis, or a socket.
SLOW_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RECEIVERS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric."""

    name: str
    """Without `PREFIX`."""
    type: Literal["gauge", "counter", "histogram"]
    help: str
    """Unit, and what a rise means."""
    labels: tuple[str, ...] = ()
    """Beside `worker`, which every series has."""
    bounds: tuple[float, ...] = ()
    """A histogram's upper bounds."""


DEFINITIONS = (
    Definition("build_info", "gauge", "Always 1; the labels say what runs.", ("version", "pycrdt", "python")),
    Definition("ready", "gauge", "1 if edits that arrive now would be stored, as /ready says, else 0."),
    Definition("draining", "gauge", "1 while the process sends its clients to other nodes before it ends, else 0."),
    Definition(
        "workers_missing", "gauge", "Processes of this node that didn't answer in time: their series are missing."
    ),
    Definition("connections", "gauge", "Clients that are connected. At connections_max, more are refused."),
    Definition("connections_opened_total", "counter", "Clients that were let in. Faster than usual: they reconnect."),
    Definition("rooms", "gauge", "Documents that are open. A rise is a rise in memory."),
    Definition("closes_total", "counter", "Connections that ended, by WebSocket code. 1011: a bug. 1013: overload.", ("code",)),
    Definition(
        "refusals_total",
        "counter",
        "What was refused, slowed or dropped, by reason: limits, credentials, rooms that can't be loaded.",
        ("reason",),
    ),
    Definition("messages_total", "counter", "WebSocket messages, by direction and kind of what is in them.", ("direction", "kind")),
    Definition(
        "message_bytes_total",
        "counter",
        "Bytes of these messages, without WebSocket framing.",
        ("direction", "kind"),
    ),
    Definition("fan_out", "histogram", "Receivers of one update on this process. More cost more.", bounds=RECEIVERS),
    Definition(
        "delivery_seconds",
        "histogram",
        "Seconds from receiving an update to handing it to a receiver's socket; a sample. What users feel.",
        bounds=(*QUICK_S, 2.5, 5.0),
    ),
    Definition("apply_seconds", "histogram", "Seconds to take an update into its document; a sample.", bounds=QUICK_S),
    Definition(
        "loop_lag_seconds",
        "histogram",
        "Seconds by which the event loop is late. Everything waits this long.",
        bounds=QUICK_S,
    ),
    Definition("outbox_bytes", "gauge", "Bytes that wait for clients to read. A rise: slow clients or network."),
    Definition("outbox_drops_total", "counter", "Times that a client read too slowly, and its outbox was emptied."),
    Definition("outbox_dropped_messages_total", "counter", "Messages that were emptied out then, after they were counted as sent."),
    Definition("outbox_heals_total", "counter", "Times that such a client then got the difference in one piece."),
    Definition("journal_backlog_bytes", "gauge", "Bytes that are accepted and not stored yet. At unstored_bytes_max, 1013."),
    Definition("journal_backlog_age_seconds", "gauge", "Seconds that the oldest of these has waited. Above 1, the store is behind."),
    Definition("commit_seconds", "histogram", "Seconds that one commit of accepted updates took.", bounds=SLOW_S),
    Definition(
        "confirm_seconds",
        "histogram",
        "Seconds from accepting the oldest update of a commit to its being stored, and confirmed.",
        bounds=SLOW_S,
    ),
    Definition("checkpoint_seconds", "histogram", "Seconds to prove and store compacted states, a batch at a time.", bounds=SLOW_S),
    Definition("load_seconds", "histogram", "Seconds to load a document for its first client.", bounds=SLOW_S),
    Definition("store_errors_total", "counter", "Calls of the store that failed. Accepted edits are tried again."),
    Definition("waiting_updates", "gauge", "Updates that wait for others before they can be applied. Some clients lack something."),
    Definition("waiting_update_bytes", "gauge", "Bytes of memory that these take."),
    Definition("bus_up", "gauge", "1 if Redis can be reached, 0 if not: edits of other nodes come late. Missing without Redis."),
    Definition("bus_lag_seconds", "histogram", "Seconds from publishing to hearing it oneself, once a second.", bounds=SLOW_S),
    Definition("bus_gaps_repaired_total", "counter", "Times that messages of a node were missed, and then found: in Redis' log, or by asking."),
    Definition("load_level", "gauge", "0 calm, 1 takes nobody more, 2 passes on awareness less often, 3 slows writers."),
    Definition("memory_bytes", "gauge", "Bytes of memory that the process occupies."),
    Definition("cpu_seconds_total", "counter", "Seconds of CPU time that the process has used, all threads."),
    Definition("server_errors_total", "counter", "Lines logged at ERROR or above. Each wants somebody to look."),
)  # fmt: skip
BY_NAME = {one.name: one for one in DEFINITIONS}


class Histogram:
    """How many values were up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """Of each bound those above the one before; the last are above all."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Traffic:
    """Messages in one direction, and their bytes, by kind (`protocol.kind_of`)."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages = [0] * len(KINDS)
        self.size = [0] * len(KINDS)

    def count(self, kind: int, size: int, messages: int = 1) -> None:
        """Count messages of one kind, each of `size` bytes."""
        self.messages[kind] += messages
        self.size[kind] += messages * size


class Distribution(NamedTuple):
    """A histogram's numbers."""

    counts: Sequence[int]
    sum: float


class Sample(NamedTuple):
    """One series at one moment."""

    name: str
    labels: Sequence[str]
    value: float | Distribution


class Metrics:
    """What one process has counted so far."""

    def __init__(self) -> None:
        self.received = Traffic()
        self.sent = Traffic()
        self.connections_opened = 0
        self.closes: Counter[str] = Counter({str(code): 0 for code in _USUAL_CODES})
        self.refusals: Counter[str] = Counter()
        """Beside those that `limits` counts."""
        self.outbox_drops = 0
        self.outbox_dropped_messages = 0
        self.outbox_heals = 0
        self.store_errors = 0
        self.server_errors = 0
        self.bus_gaps_repaired = 0
        self.sample_apply = True
        self.sample_delivery = True
        """Whether the next is to be timed: `sample` says so 20 times a second, however many there are."""
        self.fan_out = _histogram("fan_out")
        self.delivery_seconds = _histogram("delivery_seconds")
        self.apply_seconds = _histogram("apply_seconds")
        self.loop_lag_seconds = _histogram("loop_lag_seconds")
        self.commit_seconds = _histogram("commit_seconds")
        self.confirm_seconds = _histogram("confirm_seconds")
        self.checkpoint_seconds = _histogram("checkpoint_seconds")
        self.load_seconds = _histogram("load_seconds")
        self.bus_lag_seconds = _histogram("bus_lag_seconds")

    def note_close(self, code: int) -> None:
        """Count a connection that ended."""
        self.closes[str(code) if code in _CODES else _OTHER] += 1

    def note_refusal(self, error: Exception) -> None:
        """Count somebody who wasn't let in, by the kind of error."""
        self.refusals[_snake_case(type(error).__name__)] += 1

    def sample(self, lag_s: float) -> None:
        """Note how late the event loop is, and have the next update be timed. Call it `SAMPLE_INTERVAL_S` apart."""
        self.loop_lag_seconds.observe(lag_s)
        self.sample_apply = self.sample_delivery = True

    def snapshot(self, readings: Iterable[Sample], refused: Counter[str] | None = None) -> list[Sample]:
        """All series of this process, without `worker`.

        Args:
            readings: Of what isn't counted here.
            refused: What `limits` has counted.
        """
        samples = list(readings)
        for definition in DEFINITIONS:
            counted = getattr(self, definition.name.removesuffix("_total"), None)
            if isinstance(counted, Histogram):
                samples.append(Sample(definition.name, (), Distribution(tuple(counted.counts), counted.sum)))
            elif isinstance(counted, int):
                samples.append(Sample(definition.name, (), counted))
        for direction, traffic in (("in", self.received), ("out", self.sent)):
            for kind, messages, size in zip(KINDS, traffic.messages, traffic.size, strict=True):
                samples.append(Sample("messages_total", (direction, kind), messages))
                samples.append(Sample("message_bytes_total", (direction, kind), size))
        samples += [Sample("closes_total", (code,), count) for code, count in self.closes.items()]
        samples += [
            Sample("refusals_total", (reason,), count)
            for reason, count in (self.refusals + (refused or Counter())).items()
        ]
        return samples


class ErrorCounter(logging.Handler):
    """Counts lines logged at ERROR or above, in the place where an application has its lines go: if it has configured
    none, Python's last resort would no longer print any.
    """

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(logging.ERROR)
        self._metrics = metrics

    def attach(self) -> None:
        """Begin."""
        if logging.root.handlers:
            logging.root.addHandler(self)

    def detach(self) -> None:
        """End."""
        logging.root.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self._metrics.server_errors += 1


def render(snapshots: Mapping[str, Iterable[Sample]], accept: str) -> tuple[bytes, str]:
    """What Prometheus reads.

    Args:
        snapshots: By worker.
        accept: The request's header of that name, or nothing.

    Returns:
        The text, and its content type.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshots(snapshots))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def from_json(rows: Iterable[Any]) -> list[Sample]:
    """The samples that were written as JSON."""
    return [
        Sample(name, labels, Distribution(*value) if isinstance(value, list) else value) for name, labels, value in rows
    ]


class _Snapshots(Collector):
    """Snapshots of several workers as one."""

    def __init__(self, snapshots: Mapping[str, Iterable[Sample]]) -> None:
        self._series: dict[str, list[tuple[list[str], float | Distribution]]] = {}
        for worker, samples in snapshots.items():
            for name, labels, value in samples:
                self._series.setdefault(name, []).append(([worker, *labels], value))

    def collect(self) -> Iterator[Metric]:
        """In the order of their definitions."""
        for definition in DEFINITIONS:
            series = self._series.get(definition.name)
            if series:
                yield _family(definition, series)


def _family(definition: Definition, series: list[tuple[list[str], float | Distribution]]) -> Metric:
    name, labels = PREFIX + definition.name, ["worker", *definition.labels]
    if definition.type == "histogram":
        histogram = HistogramMetricFamily(name, definition.help, labels=labels)
        for values, value in series:
            assert isinstance(value, Distribution), "a histogram's"
            totals = accumulate(value.counts)
            bounds = [*map(floatToGoString, definition.bounds), "+Inf"]
            histogram.add_metric(values, list(zip(bounds, totals, strict=True)), value.sum)
        return histogram
    single = (CounterMetricFamily if definition.type == "counter" else GaugeMetricFamily)(
        name, definition.help, labels=labels
    )
    for values, value in series:
        assert not isinstance(value, Distribution), "one number"
        single.add_metric(values, value)
    return single


def _snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def _histogram(name: str) -> Histogram:
    return Histogram(BY_NAME[name].bounds)
