"""Schedules: events that are published later, kept by the server until they are due.

`due` reads when, `messages` writes and reads what is kept, `decisions` says what a second write
of one name may do, `paused` keeps one from being due; pure. `keeper` writes, replaces and cancels,
`forwarder` publishes what is due, and `publishing` is the way in, for apps, buses and handlers.
"""
