"""Sets too large to hold or to list, in shards: tar archives and parquet files, local or remote."""
