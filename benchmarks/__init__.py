"""The benchmarks: the same work for omni-worker and for others, in turn, in one run.

    loads     which events lie in a stream, and how they get there
    jobs      what one measured process is asked, and what it answers
    systems/  who is measured: one file per system, each in a process of its own
    protocols how the processes of one measured run work together
    cases/    what is measured: tables of cases
    runner    cases × systems × rounds → results
    results   the results file; medians and ratios, pure
    tables    results → tables for the terminal and for docs/performance.md
    goals     results → what we set out to reach, and whether we did
    chart     results → docs/performance.svg
    report    puts tables and chart into docs/

`make bench`, `make bench-all`, or `python -m benchmarks --help`.
"""
