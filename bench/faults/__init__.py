"""What happens to everybody else when one request, one version or one process misbehaves.

`python -m bench.faults` plays each fault against a real server, and compares what it finds with the targets in
`bench/thresholds.toml`.
"""
