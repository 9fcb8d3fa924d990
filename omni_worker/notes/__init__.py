"""Notes: what processes tell each other about an event, over the port's key-value."""

from .attempts import AttemptNotes, Note, NoteState
from .guards import Busy, DoneBefore, Guard, Guards

__all__ = ["AttemptNotes", "Busy", "DoneBefore", "Guard", "Guards", "Note", "NoteState"]
