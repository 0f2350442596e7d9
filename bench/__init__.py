"""Measures Penstock and other servers that answer the same requests, on the same machine in the same run.

`python -m bench`, from the checkout, is the main command; `profile.md` lists the others. An absolute number belongs to one
machine, so only ratios within one run are compared, with rounds of the servers interleaved.
"""
