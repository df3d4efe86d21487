"""`zta-authz trust`: assess a request, print the default model, apply a new model to decision logs."""
