"""The servers that are measured: the baselines, the other model servers' programs, and how each of them is started."""
