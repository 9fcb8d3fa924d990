"""Steering: what people order of a handler while it runs, in all its processes.

`orders` are kept in a bucket and read by every process, `pauses` carries one out on the server's
consumers, `nudges` tell processes to look at once, `controls` is the way in for commands, the
dashboard and Python.
"""
