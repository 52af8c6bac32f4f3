"""Feedback, datasets, graders, runs and their statistics. What is evaluated is any async callable."""
