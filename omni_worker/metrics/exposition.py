"""Exposition: the answer to a scrape, in the format that the scraper asks for."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Metric
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from ..routes import Answer, Request

if TYPE_CHECKING:
    from . import Metrics


class Exposed(Collector):
    """Families as a collector that is asked once."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Yield them."""
        return self._families


def exposed(metrics: Metrics, request: Request) -> Answer:
    """Answer with our metrics, and with those of the default registry: the user's own."""
    return written(_all(metrics), request)


def written(families: Iterable[Metric], request: Request) -> Answer:
    """Write families in the format that a request accepts."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    body = encode(Exposed(families))
    if not gzip_accepted(request.headers.get("accept-encoding", "")):
        return Answer(content_type=content_type, body=body)
    packed = gzip.compress(body, compresslevel=1, mtime=0)
    return Answer(content_type=content_type, body=packed, headers={"Content-Encoding": "gzip"})


def _all(metrics: Metrics) -> Iterator[Metric]:
    names = set()
    for family in metrics.collect():
        names.add(family.name)
        yield family
    # Ours come once, also where they are registered there.
    yield from (family for family in REGISTRY.collect() if family.name not in names)
