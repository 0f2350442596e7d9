"""One module per fault; each plays it against a server of its own and yields numbers."""
