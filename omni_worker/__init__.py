"""omni-worker: event workers on NATS JetStream."""
