"""Other model servers with the models of the conformance suite, each in its environment; `bench.conformance` starts them."""
