"""Program `omni-worker`: takes Ctrl-C before anything else, then calls the command line.

Outside of the package, whose import takes half a second: a KeyboardInterrupt in it is a traceback.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line. Until a command hears signals itself, Ctrl-C ends it at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else ignored: it stays so
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from omni_worker.cli import main

    main(prog_name="omni-worker")


if __name__ == "__main__":
    main()
