"""A rollout and an experiment as a server knows them: fetched, shown in a terminal, and as a page."""
