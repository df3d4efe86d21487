"""Compiled rules: clauses, matchers, the view of a request that they are evaluated on, and the index over them."""
