"""A training loop of the user's own, looked at from outside: what was seen, and what it means."""
