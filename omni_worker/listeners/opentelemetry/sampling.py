"""Sampling: which traces are certainly dropped, decided before a span is made.

The SDK takes 9 µs to find out that a span is not sampled, and most are not.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import Tracer

LOW_BITS = (1 << 64) - 1  # of a trace id; samplers by ratio look at these
ASK = 1 << 64  # above all of them: the sampler has to be asked


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of the low bits of a trace id: from there on its spans are dropped.

    One for each parent that a span can have: none, or one that is remote or local, sampled or not.
    """

    root: int = ASK
    remote_sampled: int = ASK
    remote_unsampled: int = ASK
    local_sampled: int = ASK
    local_unsampled: int = ASK

    @classmethod
    def of(cls, tracer: Tracer) -> Bounds:
        """Read the sampler of the SDK's tracer, as far as it is one of the SDK's own."""
        sampling = sys.modules.get("opentelemetry.sdk.trace.sampling")
        sampler = getattr(tracer, "sampler", None)
        if sampling is None or sampler is None:
            return cls()
        if _decides_as(sampler, getattr(sampling, "ParentBased", None)):
            names = (
                "_root",
                "_remote_parent_sampled",
                "_remote_parent_not_sampled",
                "_local_parent_sampled",
                "_local_parent_not_sampled",
            )
            return cls(*(_bound(sampling, getattr(sampler, name, None)) for name in names))
        return cls(*[_bound(sampling, sampler)] * 5)


def _bound(sampling: Any, sampler: object) -> int:
    if _decides_as(sampler, getattr(sampling, "TraceIdRatioBased", None)):
        bound = getattr(sampler, "bound", ASK)
        return bound if isinstance(bound, int) else ASK
    return 0 if sampler is getattr(sampling, "ALWAYS_OFF", sampling) else ASK


def _decides_as(sampler: object, kind: Any) -> bool:
    """Return True if a sampler decides by this class's method: a subclass may have its own."""
    own = getattr(type(sampler), "should_sample", None)
    return isinstance(kind, type) and own is not None and own is getattr(kind, "should_sample", 0)


class RootIds:
    """Generator of ids whose next trace id may be known before: it was decided by."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.next: int | None = None
        self.are_random = type(inner).__name__ == "RandomIdGenerator"  # the SDK's

    def generate_trace_id(self) -> int:
        """Return the id that was decided by, else a new one."""
        trace_id, self.next = self.next, None
        return int(self.inner.generate_trace_id()) if trace_id is None else trace_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def with_root_ids(tracer: Tracer) -> tuple[Tracer, RootIds | None]:
    """Return a copy of the SDK's tracer whose root spans get known ids, and the ids.

    Any other tracer is returned as it is: the sampler decides about its roots.
    """
    inner = getattr(tracer, "id_generator", None)
    if inner is None or not type(tracer).__module__.startswith("opentelemetry.sdk."):
        return tracer, None
    own: Any = copy.copy(tracer)
    own.id_generator = ids = RootIds(inner)
    return own, ids
