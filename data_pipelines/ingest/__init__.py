"""`rmkit ingest`: a file's rows into the warehouse, each accepted or rejected with its reason."""
