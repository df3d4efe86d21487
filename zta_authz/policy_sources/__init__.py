"""Sources of policies: files on disk, read as complete sets and published by swapping one reference."""
