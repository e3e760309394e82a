"""Plain data in, pictures out: matplotlib without its global state."""
