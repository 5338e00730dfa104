"""What `/metrics` says, read by Prometheus' own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from .api import request

PREFIX = "crdt_sync_"


class Scrape:
    """The series of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all series of this name that have these labels; 0 if there are none.

        Args:
            name: Without the prefix.
            labels: Some of their labels.
        """
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == PREFIX + name and labels.items() <= sample.labels.items()
        )

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Like a call, for each value of a label that isn't 0."""
        values = {one.labels[label] for one in self._samples if one.name == PREFIX + name}
        sums = {value: self(name, **{label: value}, **labels) for value in values}
        return {value: total for value, total in sums.items() if total}


async def scrape(url: str) -> Scrape:
    """Ask the server at `ws://host:port`."""
    answer = await request(url, "GET", "/metrics")
    assert answer.status == 200, answer.body
    return Scrape(answer.body.decode())
