"""With SPIRE's own server and agent; `make test-spire`."""
