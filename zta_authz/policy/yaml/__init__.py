"""YAML text to nodes with positions, and typed access to their fields."""
