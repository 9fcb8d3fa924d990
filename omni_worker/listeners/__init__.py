"""Listeners: who hears what happened to events. Nothing below this room logs an event."""
