"""Other model servers, measured together with Penstock: each in its own environment, with the same model, rows and load.

`python -m bench.peers`, from the checkout, is the command. The programs that it starts are in `bench.servers.peers`.
"""
