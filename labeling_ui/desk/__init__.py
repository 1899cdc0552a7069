"""The desk: which item a person gets next, under which lease and in which order, and the answers."""
