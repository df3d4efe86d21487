"""`zta-authz audit`: verify decision logs and access logs, and show how access came about."""
