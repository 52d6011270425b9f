"""What a run came to, to look at."""
