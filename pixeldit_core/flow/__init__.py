"""The mathematics of rectified flow: path, times, guidance, solvers. Pure functions and data; knows no model."""
