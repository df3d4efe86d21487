"""[pure] Authentication: verify evidence with compiled keys at a given time, and return an identity."""
