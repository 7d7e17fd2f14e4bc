"""The default study: the tables, the findings and the captions of its page."""
