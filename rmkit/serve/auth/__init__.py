"""Who may use a service: tokens, scopes and their command."""
