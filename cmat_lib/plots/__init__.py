"""Figures of the pages: every function takes frames and arrays and returns a figure."""
