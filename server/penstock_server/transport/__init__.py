"""The gRPC engines: they accept calls, hand messages to services and send replies, and know no prediction."""
