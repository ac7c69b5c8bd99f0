"""The world outside a request: gunicorn, the RQ worker, the embedded Valkey."""
