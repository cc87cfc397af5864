"""Runs that make a better model: measured, reviewed, trained, judged, round by round."""
