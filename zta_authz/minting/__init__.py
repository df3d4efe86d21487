"""Tokens minted for applications: their claims, signatures, and the states of signing keys. Pure."""
