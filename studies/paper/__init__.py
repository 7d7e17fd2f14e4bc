"""The paper's study: its published numbers beside ours."""
