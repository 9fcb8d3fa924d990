"""Routes: paths of a process's HTTP port, and functions that answer them. Serving is `process/`.

A route is a plain function, run in a thread of its own, or an ``async def``, run on the event
loop. Its key is a path, `"/metrics"`, answered for GET and HEAD; or method and path,
`"POST /pause"`. A path that ends with `/*` matches everything below it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .errors import ConfigError

READ = ("GET", "HEAD")  # methods of a key without one
METHODS = (*READ, "POST", "PUT", "PATCH", "DELETE")

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """HTTP request: the path decoded, header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """HTTP answer. Raises ValueError when a header would break the protocol."""

    status: int = 200
    content_type: str = TEXT
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:
            raise ValueError(f"status {self.status}: expected 200 to 599")
        for text in (self.content_type, *self.headers, *self.headers.values()):
            if not (text.isascii() and text.isprintable()):
                raise ValueError(f"header {text!r}: expected printable ASCII")


Route = Callable[[Request], Answer | Awaitable[Answer]]
Routes = Mapping[str, Route]


class RouteTable:
    """Find the route of a request. Raises ConfigError for a key that is wrong or taken."""

    def __init__(self, routes: Routes | None = None) -> None:
        self._routes: dict[str, dict[str, Route]] = {}  # path, method
        self.add(routes or {})

    def add(self, routes: Routes) -> None:
        """Add routes; none of them may exist already."""
        for key, route in routes.items():
            methods, path = parse_key(key)
            taken = self._routes.setdefault(path, {})
            for method in methods:
                if method in taken:
                    raise ConfigError(
                        f"two routes answer {method} {path}; give one of them another path or"
                        " method, or take it out"
                    )
                taken[method] = route

    @property
    def paths(self) -> tuple[str, ...]:
        """Return every path that has a route, in the order they were added."""
        return tuple(self._routes)

    def methods(self, path: str) -> Mapping[str, Route]:
        """Return the routes of a path by method; empty if there is none. The longest match wins."""
        for candidate in _candidates(path):
            if candidate in self._routes:
                return self._routes[candidate]
        return {}


def parse_key(key: str) -> tuple[tuple[str, ...], str]:
    """Split a route's key into methods and path. Raises ConfigError."""
    method, space, path = key.rpartition(" ")
    if space and method not in METHODS:
        raise ConfigError(f"route {key!r}: expected one of {', '.join(METHODS)} before the path")
    if not path.startswith("/") or "?" in path or "*" in path.removesuffix("/*"):
        raise ConfigError(f"route {key!r}: expected a path such as '/metrics' or '/pages/*'")
    if not space or method == "GET":
        return READ, path
    return (method,), path


def _candidates(path: str) -> Iterator[str]:
    yield path
    while path:
        path = path.rpartition("/")[0]
        yield path + "/*"
