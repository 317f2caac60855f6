"""What a network costs, found out without training it."""
