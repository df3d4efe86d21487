"""[pure] Who is calling: presented evidence, compiled keys and the time to a verified identity (authentication)."""
