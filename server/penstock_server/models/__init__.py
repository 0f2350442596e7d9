"""Published versions: the files they consist of, how they are checked and loaded, and how they run."""
