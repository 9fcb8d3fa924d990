"""The measured process: reads its job, does it, prints its figures."""

from __future__ import annotations

import importlib
import json
import sys

import uvloop

from ..jobs import from_json


def main() -> None:
    """Run the job of the command line on uvloop, as every system here."""
    job = from_json(sys.argv[1])
    system = importlib.import_module(f".{job.system}", __package__)
    figures = uvloop.run(getattr(system, job.work)(job))
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
