"""Stored: the subjects a stream stores, which for a copy or a transform are not its ``subjects``.

A mirror and an aggregate of sources store what their origins do; a transform changes the subject
on the way in (ADR-36). A copy's events are read in their origin where that is on this server, so
that no pattern reads an event twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..subjects import covers, intersection
from ..transports.infos import StreamConfig, StreamSource, SubjectTransform

ALL = ">"
OWN_SUBJECTS = "omni-worker.>"


@dataclass(frozen=True, slots=True)
class Part:
    """Part of what a stream stores: one pattern of subjects."""

    subject: str
    origin: str | None = None  # of a copy: the subject its events have in a stream of this server
    is_known: bool = True  # False: a copy of what is not on this server may store anything

    def is_read_already(self, wanted: Sequence[str]) -> bool:
        """Return True if these filters read the part's events in their origin.

        Never where a transform gave them another subject: that is what makes them readable.
        """
        return self.origin == self.subject and any(
            intersection(self.subject, want) is not None for want in wanted
        )


def is_read(config: StreamConfig) -> bool:
    """Return True unless this is a bucket, or a stream of the server's or of our own."""
    # A control character in a name would break the protocol: no request can name the stream.
    return (
        not config.name.startswith(("KV_", "OBJ_"))
        and config.name.isprintable()
        and not any(one.startswith("$") or covers(OWN_SUBJECTS, one) for one in config.subjects)
    )


def stored(config: StreamConfig, standing: Iterable[StreamConfig]) -> tuple[Part, ...]:
    """Return the parts that a stream stores, given every stream that exists."""
    return tuple(_parts(config, {one.name: one for one in standing}, ()))


def _parts(
    config: StreamConfig, streams: Mapping[str, StreamConfig], above: tuple[str, ...]
) -> Iterator[Part]:
    for subject in config.subjects:
        yield from map(Part, _transformed(subject, config.transforms))
    for source in (*config.sources, *config.mirrors):
        yield from _copied(source, streams, (*above, config.name))


def _copied(
    source: StreamSource, streams: Mapping[str, StreamConfig], above: tuple[str, ...]
) -> Iterator[Part]:
    origin = None if source.is_external else streams.get(source.name)
    if origin is None or origin.name in above or not is_read(origin):
        taken = [Part(ALL, is_known=False)]
    else:
        taken = list(_parts(origin, streams, above))
    for part in taken:
        both = intersection(part.subject, source.filter or ALL)
        if both is None:
            continue
        if not source.transforms:
            yield _narrowed(part, both)
            continue
        for transform in source.transforms:
            if (shared := intersection(both, transform.source)) is not None:
                narrowed = _narrowed(part, shared)
                # What a transform names is known, wherever it comes from.
                subject = transform.apply(shared)
                yield Part(subject, narrowed.origin, narrowed.is_known or subject != ALL)


def _narrowed(part: Part, subject: str) -> Part:
    """Return what a filter leaves of an origin's part; its events are read in that origin."""
    if not part.is_known:
        return Part(subject, is_known=subject != ALL)
    return Part(subject, subject if part.origin in (None, part.subject) else part.origin)


def _transformed(subject: str, transforms: Iterable[SubjectTransform]) -> Iterator[str]:
    """Return the subjects under which messages to this subject are stored."""
    is_whole = False
    for transform in transforms:
        if (shared := intersection(subject, transform.source)) is not None:
            yield transform.apply(shared)
            is_whole = is_whole or covers(transform.source, subject)
    if not is_whole:
        yield subject
