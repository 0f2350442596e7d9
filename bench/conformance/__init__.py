"""The conformance suite against Penstock and other model servers, each with the models of the suite's contract."""
