"""Half-precision parameters, trained as if they were float32."""
