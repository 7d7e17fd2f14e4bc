"""What is trained on: pixels or latents."""
