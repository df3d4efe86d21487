"""The server on `grpc_h2`, our own transport."""
