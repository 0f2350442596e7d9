"""Other model servers, measured beside Penstock: each in an environment of its own, asked for the same answers.

`python -m bench.peers`, from the checkout, is the one command.
"""
