"""Nouns, frozen and slotted: what the other packages speak of."""
