"""What happens when something goes wrong: omni-worker beside FastStream, each with its defaults.

`python -m benchmarks.scenarios` plays every scenario on both, on a real nats-server, and prints the
table of docs/reliability.md. `work` is what both workers' handlers do, `fast_stream` and `omni` are
the workers, `stage` is the server and the processes, `plays` are the scenarios.
"""
