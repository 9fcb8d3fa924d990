"""Exit codes of every command and worker; what each means is the same everywhere."""

from __future__ import annotations

DONE = 0  # stopped as asked, or the command did its work
FAILED = 1  # could not go on: starting it again may help
CALLED_WRONGLY = 2  # starting it again will not help
INTERRUPTED = 130  # stopped at once, by a second signal or by Ctrl-C
