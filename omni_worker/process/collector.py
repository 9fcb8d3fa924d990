"""The garbage collector of a worker's process: it passes less often, and not over what stays."""

from __future__ import annotations

import gc

PASS_AFTER = 10_000  # objects more than were freed; 700 (2 000 in newer Pythons) unless told


def calm_collector() -> None:
    """Call it once everything is imported; what a user has set for more, or off, stays so.

    Each event held is some objects that live a while. At 1 000 handlers at once the collector
    passed over all of them so often that timers fired 7 ms late on average; now 1.6 ms (decision
    11).
    """
    if not gc.isenabled() or not 0 < gc.get_threshold()[0] < PASS_AFTER:
        return
    gc.collect()
    gc.freeze()  # modules, classes and models stay for good
    gc.set_threshold(PASS_AFTER, *gc.get_threshold()[1:])
