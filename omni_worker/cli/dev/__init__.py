"""`omni-worker dev`: the parent watches, keeps a server, and replaces the working child.

The parent never imports the project's code: that happens in `cli/dev_child`, in another process.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import OmniWorkerError
from .. import CALLED_WRONGLY, FAILED, complain
from ..target_file import folder_of
from .brake import Brake
from .children import Children, DevProcess, Ended
from .dev_dashboard import open_dashboard
from .dev_server import DevServer, ServerEnded, open_server
from .messages import Messages
from .options import DevOptions as DevOptions
from .watcher import Changed, Unreported, Watch

HAND_OVER = 5.0  # seconds a child may take to hand back what it holds
NOW = 3.0  # seconds until a child that must stop at once is killed
OURS = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Asked:
    """Ctrl-C was pressed, or a SIGTERM sent."""


def run_dev(options: DevOptions) -> int:
    """Run until Ctrl-C. Return 0 (stopped), 1 (no server), 2 (called wrongly) or 130 (at once)."""
    messages = Messages()
    if not hasattr(os, "fork"):
        complain("dev needs fork, which this system does not have; use `omni-worker run`")
        return CALLED_WRONGLY
    missing = [str(folder) for folder in options.watch if not folder.is_dir()]
    if missing:
        complain(f"--watch {missing[0]}: no such directory")
        return CALLED_WRONGLY
    env_file = options.given.env_file
    if env_file is not None and env_file.path.is_file():
        messages.say(f"variables from {env_file.path}, where they are not set")
    dashboard = None
    if options.dashboard:
        dashboard = open_dashboard([options.target, *options.given.arguments()], messages)
    try:
        server = open_server(options, messages)
    except OmniWorkerError as error:
        complain(str(error))
        return FAILED
    try:
        if dashboard is not None:
            dashboard.start(server.environment)
        return Dev(options, server, messages).run()
    finally:
        if dashboard is not None:
            dashboard.close()
        server.close()


class Dev:
    """Life of the parent: it handles one happening after the other."""

    def __init__(self, options: DevOptions, server: DevServer, messages: Messages) -> None:
        self._options = options
        self._server = server
        self._messages = messages
        self._happened: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._children = Children(
            options.target,
            server.environment,
            payloads=options.payloads,
            log_level=options.log_level,
            only=options.only,
            without=options.without,
            given=options.given,
            post=self._happened.put,
        )
        self._changed_at: float | None = None  # the change that the next child is started for
        self._kill_at: float | None = None
        self._brake = Brake()
        self._held: tuple[frozenset[Path], float] | None = None  # changes, and when they count
        self._asked = 0

    def run(self) -> int:
        """Run until Ctrl-C."""
        env_file = self._options.given.env_file
        watch = Watch(
            self._watched(), self._happened.put, env_file=env_file.path if env_file else None
        )
        with _signals(lambda: self._happened.put(Asked())), self._children, watch:
            self._server.watch(self._happened.put)
            self._messages.watching(self._watched())
            self._children.start(time.monotonic(), first=True)
            while not (self._asked and self._children.working is None):
                self._take(self._next())
        self._messages.say("stopped")
        return 130 if self._asked > 1 else 0

    def _watched(self) -> tuple[Path, ...]:
        """Return the folders of --watch, else the current one and those of the app elsewhere."""
        if self._options.watch:
            return self._options.watch
        app_dir = self._options.given.app_dir
        others = dict.fromkeys((app_dir, folder_of(self._options.target, app_dir)))
        return (Path(), *(
            one for one in others
            if one is not None and not one.resolve().is_relative_to(Path.cwd())
        ))  # fmt: skip

    def _next(self) -> object:
        due = [at for at in (self._kill_at, self._held and self._held[1]) if at is not None]
        try:
            if not due:
                return self._happened.get()
            return self._happened.get(timeout=max(0.0, min(due) - time.monotonic()))
        except queue.Empty:
            return None

    def _take(self, happened: object) -> None:
        match happened:
            case None:
                self._due(time.monotonic())
            case Asked():
                self._stop()
            case Changed(paths=paths, at=at) if not self._asked:
                self._changed(frozenset(paths), at)
            case Unreported(cause=cause):
                self._messages.unreported(cause)
            case ServerEnded():
                self._server.start_again(self._messages)
            case Ended(child) if child is self._children.working:
                self._ended(child)

    # --- what follows from it ----------------------------------------------------------------

    def _due(self, now: float) -> None:
        if self._kill_at is not None and self._kill_at <= now:
            self._kill()
        if self._held is not None and self._held[1] <= now:
            paths, at = self._held
            self._held = None
            if not self._asked:
                self._replace(paths, at)

    def _changed(self, paths: frozenset[Path], at: float) -> None:
        """Reload, at once or after a pause: what waits for one goes along."""
        working = self._children.working
        while_loading = working is not None and working.was_loading(paths)
        pause = self._brake.pause(paths, while_loading=while_loading)
        if self._held is not None:
            paths |= self._held[0]
        if not pause:
            self._held = None
            self._replace(paths, at)
            return
        if self._brake.is_new:
            self._messages.loops(paths)
        self._held = paths, at + pause

    def _replace(self, paths: frozenset[Path], at: float) -> None:
        self._messages.changed(paths)
        env_file = self._options.given.env_file
        if env_file is not None and env_file.path in paths:
            self._children.take_environment(self._server.environment_with(env_file))
        if any(path.is_relative_to(OURS) for path in paths):
            self._children.renew_template()
        working = self._children.working
        if working is None:
            self._children.start(at)
            return
        self._changed_at = at
        working.hand_over()
        self._kill_at = self._kill_at or time.monotonic() + HAND_OVER

    def _ended(self, child: DevProcess) -> None:
        self._children.working = self._kill_at = None
        if self._asked:
            return
        if self._changed_at is not None:
            self._children.start(self._changed_at)
            self._changed_at = None
        else:
            self._messages.ended(child.code)

    def _stop(self) -> None:
        """Stop: the first time in good order, the second time now."""
        self._asked += 1
        working = self._children.working
        if working is None:
            return
        if self._asked == 1:
            self._messages.say("stopping; running handlers may finish (Ctrl-C again: now)")
            working.stop()
        else:
            working.hand_over()
            self._kill_at = time.monotonic() + NOW

    def _kill(self) -> None:
        self._kill_at = None
        if self._children.working is not None:
            self._messages.warn(
                "the old process does not stop: something blocks its loop. It is killed; its"
                " unfinished events come again after their ack_wait (30 s)"
            )
            self._children.working.kill()


class _signals:
    """Ctrl-C and SIGTERM call ``ask`` while this is entered."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask

    def __enter__(self) -> None:
        self._before = {
            one: signal.signal(one, lambda *_: self._ask())
            for one in (signal.SIGINT, signal.SIGTERM)
        }

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
