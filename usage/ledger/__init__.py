"""What may still be spent, and how fast: held before a call, settled after it."""
