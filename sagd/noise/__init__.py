"""Gaussian noise with a frequency-diagonal covariance."""
