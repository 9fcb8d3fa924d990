"""Tests of the kit itself: omni_worker.testing."""
