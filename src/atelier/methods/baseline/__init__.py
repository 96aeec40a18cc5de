"""What every method is held against: doing nothing, and doing nothing but style."""
