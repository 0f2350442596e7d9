"""The pictures in the README, drawn from measurements.

`python -m bench.pictures.comparison RESULTS.json OUT.svg` draws a record of `python -m bench --json`.
`python -m bench.pictures.months OUT.svg` measures the flights' drift by month and draws it.
"""
