"""Limits: what processes of one handler share of its rate and of its runs at once.

`tokens` are the times at which runs may begin, `places` the runs that go on; both are kept in one
bucket, by compare-and-set. `clock` is the server's. The gates of the same names hold events back.
"""

BUCKET = "omni-worker-limits"
STREAM = f"KV_{BUCKET}"
# Seconds. A rate is of an hour at most: a state that old says nothing any more.
TTL = 7_200.0
