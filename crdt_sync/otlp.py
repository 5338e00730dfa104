"""Spans to an OpenTelemetry collector, by OTLP over HTTP. The home of opentelemetry."""

import asyncio
import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

log = logging.getLogger("crdt_sync.tracing")

PATH = "/v1/traces"
# Some megabytes of spans. While the collector is away, the oldest are dropped.
QUEUE_MAX = 2048
BATCH_MAX = 512
DELAY_S = 1.0
# The thread that sends waits for so long, and nobody else.
EXPORT_TIMEOUT_S = 10.0
# What a stopping server grants the last spans.
CLOSE_TIMEOUT_S = 1.0
# A frame may hold thousands of messages.
STEPS_MAX = 16
ATTRIBUTE_CHARS_MAX = 300

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


class OtlpTracer:
    """See `tracing.Tracer`.

    Args:
        url: See `tracing.open_tracer`.
        sample: See `tracing.open_tracer`.
    """

    def __init__(self, url: str, *, sample: float) -> None:
        self._url = url if urlsplit(url).path.strip("/") else url.rstrip("/") + PATH
        self._sample = sample
        self._provider: TracerProvider | None = None
        self._exporter: _Exporter | None = None
        self._tracer: trace.Tracer = trace.NoOpTracer()

    def open(self, node: str | None) -> None:
        """See `tracing.Tracer.open`."""
        ours = {
            "service.name": "crdt-sync",
            "service.version": version("crdt-sync"),
            "service.instance.id": node or uuid.uuid4().hex,
        }
        # Every option that matters is spelled out, so that an upgrade can't change it.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # who asks for a span has made the choice
            # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go first.
            resource=Resource(ours).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_span_attribute_length=ATTRIBUTE_CHARS_MAX),
        )
        self._exporter = _Exporter(self._url)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=QUEUE_MAX,
                schedule_delay_millis=DELAY_S * 1000,
                max_export_batch_size=BATCH_MAX,
                export_timeout_millis=EXPORT_TIMEOUT_S * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("crdt_sync")

    async def close(self) -> None:
        """See `tracing.Tracer.close`."""
        if self._provider is None or self._exporter is None:
            return
        # It may take half a minute. Nobody waits for a daemon.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_TIMEOUT_S)
        self._exporter.give_up()

    def sample(self, name: str, *, link: str | None = None) -> "OtlpSpan | None":
        """See `tracing.Tracer.sample`."""
        if random.random() >= self._sample:
            return None
        linked = _read(link) if link is not None else None
        links = [trace.Link(linked)] if linked is not None else []
        return OtlpSpan(self._tracer, name, Context(), links=links)

    def follow(self, name: str, traceparent: str) -> "OtlpSpan | None":
        """See `tracing.Tracer.follow`."""
        remote = _read(traceparent)
        if remote is None or not remote.trace_flags.sampled:
            return None
        return OtlpSpan(self._tracer, name, trace.set_span_in_context(trace.NonRecordingSpan(remote)))


class OtlpSpan:
    """See `tracing.Span`."""

    def __init__(
        self,
        tracer: trace.Tracer,
        name: str,
        parent: Context,
        *,
        kind: trace.SpanKind = trace.SpanKind.SERVER,
        attributes: dict[str, object] | None = None,
        links: Sequence[trace.Link] = (),
    ) -> None:
        self._tracer = tracer
        self._span = tracer.start_span(name, parent, kind=kind, attributes=_named(attributes or {}), links=links)
        self._context = trace.set_span_in_context(self._span)
        self._stepped_at = time.time_ns()
        self._steps = 0

    @property
    def trace(self) -> str:
        """See `tracing.Span.trace`."""
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def traceparent(self) -> str:
        """See `tracing.Span.traceparent`."""
        return f"00-{self.trace}-{self._span.get_span_context().span_id:016x}-01"

    def describe(self, **attributes: object) -> None:
        """See `tracing.Span.describe`."""
        self._span.set_attributes(_named(attributes))

    def child(self, name: str, **attributes: object) -> "OtlpSpan":
        """See `tracing.Span.child`."""
        return OtlpSpan(self._tracer, name, self._context, kind=trace.SpanKind.INTERNAL, attributes=attributes)

    def step(self, name: str, **attributes: object) -> None:
        """See `tracing.Span.step`."""
        self._steps += 1
        if self._steps > STEPS_MAX:
            return
        now = time.time_ns()
        began_at = min(self._stepped_at, now)
        done = self._tracer.start_span(name, self._context, attributes=_named(attributes), start_time=began_at)
        done.end(now)
        self._stepped_at = now

    def end(self, error: BaseException | None = None) -> None:
        """See `tracing.Span.end`."""
        if error is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


class _Exporter(SpanExporter):
    """Sends spans in the processor's thread, and says once that it can't."""

    def __init__(self, url: str) -> None:
        # Credentials and the like, if it takes any: OTEL_EXPORTER_OTLP_HEADERS.
        self._inner = OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)
        parts = urlsplit(url)
        self._where = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self._failing = False
        self._given_up = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter.export`."""
        result = self._inner.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing and not self._given_up:
            log.warning("tracing_unavailable", extra={"collector": self._where, "spans": len(spans)})
        elif self._failing and not failing:
            log.info("tracing_recovered", extra={"collector": self._where})
        self._failing = failing
        return result

    def shutdown(self) -> None:
        """See `SpanExporter.shutdown`."""
        self.give_up()

    def give_up(self) -> None:
        """Send no more: an attempt that is waiting for its turn ends."""
        if not self._given_up:
            self._given_up = True
            self._inner.shutdown()  # type: ignore[no-untyped-call]


def _named(attributes: dict[str, object]) -> dict[str, bool | int | float | str]:
    return {
        f"crdt_sync.{name}": value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in attributes.items()
        if value is not None
    }


def _read(traceparent: str) -> trace.SpanContext | None:
    """What a traceparent says; None if it isn't one. Source: W3C Trace Context, "traceparent Header"."""
    match = _TRACEPARENT.fullmatch(traceparent.strip())
    if match is None or (traceparent.startswith("00") and len(traceparent.strip()) != 55):
        return None
    flags = trace.TraceFlags(int(match[3], 16) & trace.TraceFlags.SAMPLED)
    return trace.SpanContext(int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=flags)
