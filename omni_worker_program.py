"""Program `omni-worker`: takes Ctrl-C before anything else, then calls the command line.

Outside of the package, whose import takes half a second: a KeyboardInterrupt in it is a traceback.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from contextlib import contextmanager


def main() -> None:
    """Run the command line. Until a command hears signals itself, Ctrl-C ends it at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored: it stays so
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    with _no_collector():
        from omni_worker.cli import main

    main(prog_name="omni-worker")


@contextmanager
def _no_collector() -> Iterator[None]:
    """Import without the garbage collector: what is imported stays, and its passes take a tenth."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


if __name__ == "__main__":
    main()
