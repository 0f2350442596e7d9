"""Where versions come from: registries and folders, and the copies of what was fetched."""
