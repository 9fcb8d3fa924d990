"""Notes: what processes tell each other about an event, over the port's key-value."""

from .attempts import Attempts, Note, State
from .guards import Busy, DoneBefore, Guard, Guards

__all__ = ["Attempts", "Busy", "DoneBefore", "Guard", "Guards", "Note", "State"]
