"""The stages of the study, one script each: `python -m pipeline.train`."""
