"""The command line: the table of commands, sub-verbs, shared arguments, and how results are shown."""
