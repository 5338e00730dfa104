"""What the metrics of a server say of it, read from outside: at one moment, and between two. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from .metrics import PREFIX


class Sample(NamedTuple):
    """One value."""

    name: str
    """Without `PREFIX`."""
    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Scrape:
    """All metrics at one moment, of all processes that serve a port."""

    at: float
    """Monotonic seconds."""
    samples: tuple[Sample, ...]

    @classmethod
    def read(cls, text: str, *, at: float) -> "Scrape":
        """Read what `/metrics` answers.

        Raises:
            ValueError: It isn't that.
        """
        try:
            families = list(text_string_to_metric_families(text))
        except (ValueError, IndexError, KeyError):
            families = []
        samples = [
            Sample(one.name.removeprefix(PREFIX), one.labels, one.value)
            for family in families
            for one in family.samples
            if one.name.startswith(PREFIX)
        ]
        if not samples:
            raise ValueError("no metrics of crdt-sync")
        return cls(at, tuple(samples))

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of a metric over all processes and all labels but these; None if it isn't there."""
        values = list(self._values(name, labels))
        return sum(values) if values else None

    def worst(self, name: str) -> float | None:
        """The highest value that a process has; None if the metric isn't there."""
        return max(self._values(name, {}), default=None)

    def rate(self, before: "Scrape", name: str, **labels: str) -> float | None:
        """By how much a counter grew a second; None if it isn't there, or a process was started anew in between."""
        now, then = self.total(name, **labels), before.total(name, **labels)
        if now is None or then is None or now < then or self.at <= before.at:
            return None
        return (now - then) / (self.at - before.at)

    def quantile(self, before: "Scrape", name: str, part: float) -> float | None:
        """The bound of a histogram's bucket below which this part of what was observed in between is.

        None if nothing was, or if it is above all bounds.
        """
        counts = _buckets(self, name)
        for bound, count in _buckets(before, name).items():
            counts[bound] = counts.get(bound, 0.0) - count
        # Cumulative, as Prometheus has them.
        whole = counts.get(float("inf"), 0.0)
        if whole <= 0:
            return None
        found = next(bound for bound in sorted(counts) if counts[bound] >= part * whole)
        return found if found < float("inf") else None

    def _values(self, name: str, labels: dict[str, str]) -> Iterable[float]:
        return (one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items())


def _buckets(scrape: Scrape, name: str) -> dict[float, float]:
    found: dict[float, float] = {}
    for one in scrape.samples:
        if one.name == f"{name}_bucket":
            bound = float(one.labels["le"])
            found[bound] = found.get(bound, 0.0) + one.value
    return found
