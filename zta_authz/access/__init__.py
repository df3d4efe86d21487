"""Just-in-time access without I/O: the grants in force, and what may become of a request."""
