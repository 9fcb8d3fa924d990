"""Dead letters: `written` when an event is given up, `read` back, and `marks` of what was done."""
