"""The decision (NIST SP 800-207: policy engine): snapshot of rules and keys, decide, explain."""
