"""The theory, and a test of the start of sampling."""
