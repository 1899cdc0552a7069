"""Webhooks: what happens in a project, sent to another system's address."""
