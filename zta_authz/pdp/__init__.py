"""[pure] The policy engine of NIST SP 800-207: a snapshot of rules and keys, decisions and their explanation."""
