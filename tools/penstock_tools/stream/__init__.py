"""Answers the rows of a Kafka topic into another topic: `penstock stream`."""
