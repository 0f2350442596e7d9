"""Canary judges side by side: how often each rolls a good version back, and how soon a bad one.

`python -m bench.judges` simulates; `README.md` has the result.
"""
