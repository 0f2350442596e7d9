"""A conformance suite for the Open Inference Protocol, version 2: gRPC and REST, for any server.

Each case is a record: a rule of the specification in our own words and its place there, a request, and what must come back.
`python -m penstock_conformance HOST:PORT` asks a server that serves the models of `contract`.
"""
