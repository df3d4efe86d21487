"""Warn about rules that compile but are probably mistakes."""
