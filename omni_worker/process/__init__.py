"""Process: an app as a process of the operating system: signals, health, parents, exit codes."""
