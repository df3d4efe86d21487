"""Shared Signals (SSF 1.0, CAEP, RISC) without I/O: bytes to a verified event, and an event to changes of access.

subject_ids     the identifiers of RFC 9493 and SSF
set_verifier    a Security Event Token, keys and the time -> SecurityEvent, or SetError
subjects        which tokens, sessions and devices an event is about
actions         an event and its SignalSource -> revocations and signals
signal_table    the signals in force, as a decision point holds them
"""
