"""Labels: what was true of rows that were answered, joined with the answers, and how good each version is by them."""
