"""Notes: facts about an event that processes share, over the port's key-value."""

from .attempts import AttemptNotes, Note, NoteState
from .guards import Busy, DoneBefore, Guard, Guards

__all__ = ["AttemptNotes", "Busy", "DoneBefore", "Guard", "Guards", "Note", "NoteState"]
