"""Commands: a file for each, with its options and its work. Imported when it is called."""
