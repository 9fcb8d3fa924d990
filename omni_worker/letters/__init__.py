"""Dead letters: `written` when an event is given up, `read` back, and their state in `marks`."""
