"""What Adam does to each parameter, measured while it trains."""
