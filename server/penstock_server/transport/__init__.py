"""gRPC: the calls that arrive, the services they are for, the codes that errors become."""
