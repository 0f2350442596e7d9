"""Names of version 0.1 that moved, for those who import them."""
