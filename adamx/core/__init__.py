"""Algorithm 1 and its weight decay, one stage a file."""
