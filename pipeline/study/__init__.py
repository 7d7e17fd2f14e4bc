"""The study's numbers as tables, the published ones beside them, and what follows."""
