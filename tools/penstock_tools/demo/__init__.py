"""`penstock demo`: trains two versions, serves them, sends a year of flights, and promotes the second half-way."""
