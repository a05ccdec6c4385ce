"""The real engines, on a machine without a GPU, as judges of what we render and stand in for."""
