"""The HatShop demo: identities minted on the spot, an echoing upstream, a real Envoy and a real zta-authz."""
