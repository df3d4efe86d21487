"""The running service: builds everything, starts it, reloads it and stops it."""
