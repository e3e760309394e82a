"""The report in parts: what it says as plain data, and one page made of that."""
