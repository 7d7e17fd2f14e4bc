"""What no number depends on: files, downloads, progress, processes."""
