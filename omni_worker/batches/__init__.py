"""Batches: a handler that is given many events at once, each of them settled by itself.

`batch` is what users hold, `declarations` is `@app.on_batch`, `gathering` brings events together
and runs them. An event of a batch has its own run, with its gates and middlewares around it: only
the innermost call, the user's function, is shared.
"""

from .batch import Batch as Batch
