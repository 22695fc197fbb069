"""Measures of generated video: each returns one value per clip, so that intervals can be bootstrapped."""
