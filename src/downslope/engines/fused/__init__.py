"""Whole descents compiled to machine code, many runs to an instruction.

The loss and gradient of a few samples, and the optimizer's update rule, are traced into graphs
(`trace`, `graphs`), the graphs are interpreted over `Value`s that emit vector instructions
(`lower`, `values`, `vector_math`), inside the loops of `kernel`; LLVM makes machine code of it
(`compile`, `cache`), and `run` calls it on tiles of runs.
"""
