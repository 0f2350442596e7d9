"""What a server says of drift, for people: asked for, ranked, and drawn in a terminal or a page."""
