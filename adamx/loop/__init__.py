"""Algorithm 1 as a whole: its loop and what ends it."""
