"""Listeners and their security: addresses, TLS, deadlines. `grpcio` and `fast` are the two servers."""
