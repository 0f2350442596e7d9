"""Measures Penstock against servers that answer the same requests on the same machine in the same run.

`python -m bench`, from the checkout, is the one command. Absolute numbers belong to the machine; only ratios within one
run are compared, with rounds of the servers interleaved.
"""
