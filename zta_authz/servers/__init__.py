"""Listeners and their security: addresses, TLS, deadlines. `grpcio` and `fast` answer on them."""
