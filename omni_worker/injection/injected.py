"""Injected: the dependencies of one handler, resolved for each run by taskiq-dependencies.

The library orders, calls and remembers them. Entering and leaving is contextlib's business, so
that clean-up sees the ending, may replace its error and can never hide it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import AsyncGeneratorType, GeneratorType
from typing import Any, get_args

from taskiq_dependencies import DependencyGraph
from taskiq_dependencies import Depends as Dependency
from taskiq_dependencies.ctx import AsyncResolveContext, SyncResolveContext

from ..errors import ConfigError
from ..events import Event
from ..outcomes import DONE, Failed
from ..signatures import CONTEXT_NAMES, function_of, is_async, named
from .marks import RunContext
from .needs import Needs, needs_of, walk

Overrides = Mapping[Callable[..., Any], Any]


class Injected:
    """Dependencies of one handler, checked when it is declared."""

    def __init__(
        self,
        call: Callable[..., Any],
        parameters: Mapping[str, Callable[..., Any]],
        model: type[Event[Any]],
        names: Mapping[str, Any],
        overrides: Overrides | None = None,
    ) -> None:
        self._parameters = parameters
        self._call = call
        self._model = model
        self._local_names = names
        self._overrides = overrides or {}
        self._provided: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._needs = functools.cache(self._needs_of)
        replaced = {name: self._replaced(one) for name, one in parameters.items()}
        self.dependencies = list(walk(replaced, self._needs))
        for dependency in self.dependencies:
            self._check(dependency)
        needs = Needs(replaced, {}, self._context_names())
        self._graph = DependencyGraph(self._signed(lambda: None, needs))
        # As written, and left the other way round: the library's own order is any that works.
        places: dict[Any, int] = {
            self._provided[one]: place for place, one in enumerate(self.dependencies)
        }
        places |= {_event: -1, _context: -1}
        self._graph.ordered_deps.sort(key=lambda one: places.get(one.dependency, len(places)))

    @property
    def replaceable(self) -> set[Callable[..., Any]]:
        """Dependencies that an override may replace, those replaced already as well."""
        return {*self.dependencies, *self._overrides}

    def replaced(self, overrides: Overrides) -> Injected:
        """Return the same with these dependencies replaced, as in a test.

        By functions, or by values that cannot be called.
        """
        own = {one: by for one, by in overrides.items() if one in self.replaceable}
        return Injected(self._call, self._parameters, self._model, self._local_names, own)

    # --- a run -----------------------------------------------------------------------------

    async def run(self, event: Event[Any], context: RunContext) -> None:
        """Call an async handler with what it depends on; clean up whatever its ending."""
        opened = _OnLoop(self._graph, self._graph, {_event: event, _context: context})
        try:
            given = await opened.resolve_kwargs()
            await self._call(event, **given)
            _raise_ended(context)
        except BaseException as error:
            await opened.leave(error)
            raise
        await opened.leave(None)

    def run_in_thread(self, event: Event[Any], context: RunContext) -> Any:
        """Call a plain def handler likewise, in the thread that this is called in."""
        opened = SyncResolveContext(self._graph, self._graph, {_event: event, _context: context})
        try:
            given = opened.resolve_kwargs()
            result = self._call(event, **given)
            _raise_ended(context)
        except BaseException as error:
            _leave_in_thread(opened, error)
            raise
        _leave_in_thread(opened, None)
        return result

    # --- declaration -----------------------------------------------------------------------

    def _replaced(self, dependency: Callable[..., Any]) -> Callable[..., Any]:
        if dependency not in self._overrides:
            return dependency
        by = self._overrides[dependency]
        return by if callable(by) else functools.partial(_value, by)

    def _needs_of(self, dependency: Callable[..., Any]) -> Needs:
        found = needs_of(dependency, self._local_names)
        below = {name: self._replaced(one) for name, one in found.dependencies.items()}
        return Needs(below, found.events, found.contexts)

    def _check(self, dependency: Callable[..., Any]) -> None:
        if not is_async(self._call) and _is_async(dependency):
            raise ConfigError(
                f"{named(self._call)} is a plain def and runs in a thread, where its dependency"
                f" {named(dependency)} cannot be awaited: make the handler async def, or the"
                " dependency a plain def"
            )
        for name, event in self._needs(dependency).events.items():
            if not _holds(event, self._model):
                raise ConfigError(
                    f"{named(dependency)} takes {name}: {_shown(event)}, and"
                    f" {named(self._call)} handles {_shown(self._model)}; write Event[Any] there"
                )

    def _context_names(self) -> tuple[str, ...]:
        """The parameter of the handler that takes the context: handed over by its name."""
        rest = [
            one
            for one in inspect.signature(self._call).parameters.values()
            if one.name not in self._parameters
            and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        ][1:]
        return tuple(
            one.name for one in rest if one.default is one.empty or one.name in CONTEXT_NAMES
        )[:1]

    def _provider(self, dependency: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that the library can read and call for a dependency."""
        if (made := self._provided.get(dependency)) is None:
            enter: Callable[..., Any] = dependency
            # The library's own way to leave a generator hides what its clean-up raises.
            if inspect.isasyncgenfunction(dependency):
                enter = asynccontextmanager(dependency)
            elif inspect.isgeneratorfunction(dependency):
                enter = contextmanager(dependency)
            made = self._signed(enter, self._needs(dependency))
            self._provided[dependency] = made
        return made

    def _signed(self, call: Callable[..., Any], needs: Needs) -> Callable[..., Any]:
        def provide(**given: Any) -> Any:
            value = call(**given)
            if isinstance(value, AsyncGeneratorType):  # of a method, a partial, a decorated one
                return asynccontextmanager(lambda: value)()
            return contextmanager(lambda: value)() if isinstance(value, GeneratorType) else value

        wanted = {name: self._provider(one) for name, one in needs.dependencies.items()}
        wanted |= dict.fromkeys(needs.events, _event) | dict.fromkeys(needs.contexts, _context)
        kind = inspect.Parameter.KEYWORD_ONLY
        provide.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, kind, default=Dependency(one)) for name, one in wanted.items()]
        )
        return provide


class _OnLoop(AsyncResolveContext):
    async def leave(self, error: BaseException | None) -> None:
        """Leave in reverse order, each of them; raise what a clean-up raised of its own.

        A clean-up that hides the error of the handler hides it from none: the run has failed.
        """
        failed = error
        for opened in reversed(self.opened_dependencies):
            try:
                if hasattr(opened, "__aexit__"):
                    await opened.__aexit__(*_facts(failed))
                else:
                    opened.__exit__(*_facts(failed))
            except BaseException as raised:
                failed = raised
        if failed is not None and failed is not error:
            raise failed


def _leave_in_thread(opened: SyncResolveContext, error: BaseException | None) -> None:
    failed = error
    for one in reversed(opened.opened_dependencies):
        try:
            one.__exit__(*_facts(failed))
        except BaseException as raised:
            failed = raised
    if failed is not None and failed is not error:
        raise failed


def _facts(error: BaseException | None) -> tuple[Any, Any, Any]:
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


def _raise_ended(context: RunContext) -> None:
    """Raise what makes a run fail although its handler returned: clean-up must not commit."""
    if context.ended is not DONE and isinstance(context.ended, Failed):
        raise context.ended.error


def _event() -> None:
    """Stand for the event in a graph; its value is each run's."""


def _context() -> None:
    """Stand for the context in a graph."""


def _value(value: Any) -> Any:
    return value


def _is_async(dependency: Callable[..., Any]) -> bool:
    target = function_of(dependency)
    return inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target)


def _holds(wanted: type[Event[Any]], given: type[Event[Any]]) -> bool:
    """Return False if the payload of a handler's event is surely not what a dependency wants."""
    wide: Any = wanted.model_fields["payload"].annotation
    narrow: Any = given.model_fields["payload"].annotation
    if wide is narrow or wide is Any or not (isinstance(wide, type) and not get_args(wide)):
        return True
    if narrow is Any:
        return False
    return not isinstance(narrow, type) or bool(get_args(narrow)) or issubclass(narrow, wide)


def _shown(event: type[Event[Any]]) -> str:
    payload = event.model_fields["payload"].annotation
    return f"Event[{getattr(payload, '__name__', payload)}]"
