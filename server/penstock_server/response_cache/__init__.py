"""The response cache: answers that a version gave, kept for requests with the same rows."""
