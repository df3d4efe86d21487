"""The server on gRPC's own library."""
