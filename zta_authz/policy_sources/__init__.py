"""Where policies come from: files on disk, read as whole sets and published by swapping one reference."""
