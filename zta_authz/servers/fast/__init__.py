"""The fast server, on our own HTTP/2 transport `grpc_h2`."""
