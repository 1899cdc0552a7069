"""Object storage (`s3://bucket/key`, and whatever else fsspec opens) as files of this machine, for every command.

What is read is fetched to $RMKIT_HOME/fetched (`fetch`); what a command writes is made whole in $RMKIT_HOME/staged and
then published (`staged`, `publish`). Ledger, warehouse and caches stay on this machine.
"""
