"""Scores, their intervals, calibration, decisions net of costs, and the baselines that every score stands beside."""
