"""Facts from the operator's data: files are read here, and published as immutable views that decisions look up."""
