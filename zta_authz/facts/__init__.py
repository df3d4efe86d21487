"""What policies may ask about beyond the request (a policy information point)."""
