"""The memory server beside a real one: the same traces, the same deliveries."""
