"""The command line: the table of commands, shared arguments, and how results are shown."""
