"""What the pages of all studies share: results as tables, verdicts, and how they are shown."""
