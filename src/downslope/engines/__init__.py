"""Engines: ways to carry out many descents. All take a `Work` and give an `Outcome`."""
