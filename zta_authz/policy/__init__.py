"""Policy documents to the rule table: YAML reader, matchers, compiler, index."""
