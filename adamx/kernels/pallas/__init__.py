"""The step on GPUs and TPUs, for moments whose block maxima XLA cannot fold into one pass: Pallas kernels."""
