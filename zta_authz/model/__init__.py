"""Data types that the other packages share, frozen and slotted."""
