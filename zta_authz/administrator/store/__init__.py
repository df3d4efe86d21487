"""The store of the administrator: a port, and its implementations on SQLite and on Valkey or Redis."""
