"""Steps whose gradients are not finite, skipped."""
