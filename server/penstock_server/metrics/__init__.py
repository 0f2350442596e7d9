"""Counters in shared memory, and how Prometheus reads them."""
