"""Traces: where the time goes on the way of a message, through one node and on to the others.

Nothing is measured unless a tracer is open, and then only for a share of all messages. Leaves making and sending spans to
`otlp`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class NoTracing(Exception):
    """There can be no traces. The text says why and what to do."""


class Span(Protocol):
    """A piece of work, with its place in a trace."""

    @property
    def trace(self) -> str:
        """The trace's id, 32 hexadecimal digits."""

    @property
    def traceparent(self) -> str:
        """What somebody else needs to know in order to go on with the trace; see W3C Trace Context."""

    def describe(self, **attributes: object) -> None:
        """Ids and sizes that belong to it."""

    def child(self, name: str, **attributes: object) -> "Span":
        """A piece of this work, that begins now."""

    def step(self, name: str, **attributes: object) -> None:
        """What was done since the last step, or since the beginning. Beyond some number of steps, nothing is noted."""

    def end(self, error: BaseException | None = None) -> None:
        """The work is done; with `error`, it failed."""


class Tracer(Protocol):
    """What makes spans. All of it is called on the event loop, and may not wait."""

    def open(self, node: str | None) -> None:
        """Begin to send spans, in the name of a node."""

    async def close(self) -> None:
        """Send what waits, if that is quickly done."""

    def sample(self, name: str, *, link: str | None = None) -> Span | None:
        """A trace's first span, or None for all but a share of them.

        Args:
            name: What is being done.
            link: A traceparent of something that it has to do with.
        """

    def follow(self, name: str, traceparent: str) -> Span | None:
        """What is done because of a span elsewhere: part of its trace, if that is one of those that are sampled.

        None also if what is given isn't a traceparent.
        """


current: ContextVar[Span | None] = ContextVar("span", default=None)
"""The span of what is being done; None if that isn't traced."""


@contextmanager
def within(span: Span | None) -> Iterator[Callable[[], None]]:
    """Have what is done inside be what the span is about, and end it then. Nothing, without one.

    What it gives ends the span before that.
    """
    if span is None:
        yield _nothing
        return
    token = current.set(span)
    ended = False

    def end(error: BaseException | None = None) -> None:
        nonlocal ended
        if not ended:
            ended = True
            current.reset(token)
            span.end(error)

    try:
        yield end
    except BaseException as error:
        end(error)
        raise
    end()


def _nothing() -> None:
    pass


def begin(tracer: Tracer | None, name: str, *, traceparent: str | None = None, **attributes: object) -> Span | None:
    """The span for a piece of work that isn't frequent: of what is being done, of what a peer does, or one of its own."""
    if tracer is None:
        return None
    outer = current.get()
    if outer is not None:
        return outer.child(name, **attributes)
    span = (tracer.follow(name, traceparent) if traceparent else None) or tracer.sample(name)
    if span is not None:
        span.describe(**attributes)
    return span


def open_tracer(url: str, *, sample: float) -> Tracer:
    """Return the tracer for a collector; it needn't be reachable.

    Args:
        url: Where it takes OTLP over HTTP. Without a path, `/v1/traces` is meant.
        sample: Which share of messages is traced, 0 to 1.

    Raises:
        NoTracing: What it takes isn't installed.
    """
    try:
        from .otlp import OtlpTracer
    except ImportError as error:
        raise NoTracing(
            f"CRDT_SYNC_TRACE_URL takes what isn't installed ({error}): run pip install 'crdt-sync[tracing]', or unset it"
        ) from error
    return OtlpTracer(url, sample=sample)
