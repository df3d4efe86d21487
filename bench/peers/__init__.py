"""Compare the service with its peers on the same requests and policies, in alternation. See README.md."""
