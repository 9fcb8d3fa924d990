"""Notes: facts about an event that processes share, over the port's key-value."""

from .attempts import AttemptNotes, Note, NoteState
from .guards import Busy, DoneBefore, Guard, Guarded, Guards, digest_of
from .ledger import Ledger
from .settled import SettledNotes

__all__ = [
    "AttemptNotes",
    "Busy",
    "DoneBefore",
    "Guard",
    "Guarded",
    "Guards",
    "Ledger",
    "Note",
    "NoteState",
    "SettledNotes",
    "digest_of",
]
