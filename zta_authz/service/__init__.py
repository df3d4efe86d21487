"""The running service: it joins everything, starts, reloads and stops it."""
