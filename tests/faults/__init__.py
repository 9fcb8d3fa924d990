"""Faults: real servers and real workers that are really killed, and an account of every event."""
