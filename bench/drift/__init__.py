"""What drift detection costs, and whether its rules err as often as they claim.

`python -m bench.drift.cost` measures; `python -m bench.drift.calibration` simulates.
"""
