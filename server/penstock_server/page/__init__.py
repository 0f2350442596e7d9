"""The operations page: its document, what it shows of traffic, and the stream that tells it what is new."""
