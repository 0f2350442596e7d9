"""The request log: a sample of what was answered, kept as Parquet."""
