"""The standing mix: everything at once against a real server, and every answer checked against the row that was asked."""
