"""Trust: how far a request is trusted, and why. Pure: no I/O, no clock.

A `TrustModel` document gives components weights and signals. `signals` reads one signal from a request, `assessment`
adds them up to a score and a level, and `counterfactual` finds the fewest signals that would have to change.
"""
