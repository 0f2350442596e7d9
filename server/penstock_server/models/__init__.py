"""Published versions: what they are made of, which are wanted, where they come from, and how they are loaded."""
