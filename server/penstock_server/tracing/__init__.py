"""Traces requests: which of them, what their stages took, and their spans on the way to an OpenTelemetry collector.

Workers write a record per traced request into memory that they share with a process of its own (`exporter`), which makes
spans of the records and sends them. Nothing of OpenTelemetry runs in a worker.
"""
