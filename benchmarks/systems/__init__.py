"""Who is measured: a file per system, with a function per kind of work (`drain`, `publish`, …).

A system runs in a process of its own (`python -m benchmarks.systems JOB`): it gets ready, says so,
waits for the word, works, and answers with its figures in one line of JSON.
"""
