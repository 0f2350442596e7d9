"""What a feature specification says: columns, blocks, encoders and steps, checked at birth."""
