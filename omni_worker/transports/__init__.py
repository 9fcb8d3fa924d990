"""Transports: the port (base) and its adapters."""
