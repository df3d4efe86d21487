"""Conditions in CEL: compile, bound, evaluate and explain them."""
