"""Queues that learn: which items people should see first, and what each strategy would have gained."""
