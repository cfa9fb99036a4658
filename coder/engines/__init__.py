"""What evaluates a frozen checkpoint."""
