"""Sampling along the flow: time grids, guidance, solvers and the loop. Knows a network only as a velocity function."""
