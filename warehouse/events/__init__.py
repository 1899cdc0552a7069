"""The ledger's events as rows of the warehouse."""
