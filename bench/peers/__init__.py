"""The service beside its peers: the same requests and the same policy for each, in turns in one run. See README.md."""
