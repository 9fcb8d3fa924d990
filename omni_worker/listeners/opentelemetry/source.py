"""Source of spans: a tracer, and which of its spans are certainly dropped."""

from __future__ import annotations

from random import getrandbits

from opentelemetry.trace import SpanContext, Tracer

from .parents import Parent, Unrecorded, is_w3c
from .sampling import ASK, LOW_BITS, Bounds, with_root_ids

_ODD = b"13579bdf"  # last digits of flags whose lowest bit is set: sampled


class SpanSource:
    """Makes spans by one tracer, and none where its sampler would drop them."""

    def __init__(self, tracer: Tracer) -> None:
        self._bounds = Bounds.of(tracer)
        self._root = self._bounds.root
        self.tracer, self._ids = with_root_ids(tracer)
        self.is_w3c = is_w3c()

    def dropped_root(self) -> Unrecorded | None:
        """Decide about a new trace; return its unrecorded span if it is dropped.

        If not, the next root span of the tracer has the trace id that was decided by.
        """
        ids, bound = self._ids, self._root
        if ids is None or bound == ASK:
            return None
        trace_id = getrandbits(128) or 1 if ids.are_random else ids.inner.generate_trace_id()
        if trace_id & LOW_BITS < bound:
            ids.next = trace_id
            return None
        return Unrecorded(trace_id)

    def dropped_child(self, parent: Parent) -> Unrecorded | None:
        """Return the unrecorded span of a run whose message was published in this span.

        None if it is sampled, or only the sampler knows.
        """
        trace_id, span_id, flags = parent
        if trace_id is None or flags is None:
            return None
        bounds = self._bounds
        bound = bounds.remote_sampled if flags[1] in _ODD else bounds.remote_unsampled
        if bound == ASK or (bound and int(trace_id[16:], 16) < bound):
            return None
        return Unrecorded(trace_id, span_id)

    def drops_child_of(self, parent: SpanContext) -> bool:
        """Return True if a child of this valid span is not sampled."""
        bounds, is_sampled = self._bounds, parent.trace_flags.sampled
        if parent.is_remote:
            bound = bounds.remote_sampled if is_sampled else bounds.remote_unsampled
        else:
            bound = bounds.local_sampled if is_sampled else bounds.local_unsampled
        return parent.trace_id & LOW_BITS >= bound
