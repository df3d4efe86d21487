"""Read policy documents: from YAML text to specs whose shape is checked, and to verified plain documents."""
