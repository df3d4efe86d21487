"""Key material that is fetched and refreshed in the background."""
