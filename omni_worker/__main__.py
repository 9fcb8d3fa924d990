"""`python -m omni_worker`: the command line, for where the script is not on the PATH."""

from .cli import main

main(prog_name="omni-worker")
