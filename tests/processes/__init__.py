"""Proofs that only real processes can give: `omni-worker run` against a real nats-server."""
