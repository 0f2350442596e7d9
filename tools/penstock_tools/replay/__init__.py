"""Replays a server's request log through another version, and compares what it answers with what was answered."""
