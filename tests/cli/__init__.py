"""The command line, as a person in a terminal meets it."""
