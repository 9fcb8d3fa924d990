"""Injection: what `Depends` gives a handler, in addition to its event and context.

`marks` is what users write, `needs` reads signatures and refuses what nothing could provide,
`injected` provides it for each run, by the library taskiq-dependencies. Only `injected` imports
the library, which imports FastAPI where that is installed: it is imported with the first `Depends`.
"""

from .marks import Depends as Depends
from .marks import RunContext as RunContext
from .needs import marked as marked
