"""The HatShop demo: generated identities, an echo server, a real Envoy and a real zta-authz."""
