"""Whole descents compiled to machine code, many runs to an instruction."""
