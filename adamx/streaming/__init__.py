"""A step outside of `jit`, leaf by leaf, while gradients and parameters move between devices."""
