"""The service over HTTP: application, gateway, wire forms, errors, idempotency and metrics."""
