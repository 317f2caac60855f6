"""What a user asks for: requests and recipes, validated when they are made."""
