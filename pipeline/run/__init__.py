"""What every stage shares: its command line, its processes, and what it will cost."""
