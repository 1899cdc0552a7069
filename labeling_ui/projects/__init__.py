"""Projects: their definition, people, labels and progress."""
