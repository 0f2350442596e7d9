"""Feature specifications: columns, blocks, encoders and steps, checked when they are made."""
