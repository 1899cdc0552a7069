"""Dataset versions: log, branches, diff, merge, digest, checkout."""
