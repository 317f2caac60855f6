"""What a search will cost, measured on a few layouts before it is submitted, and what it took."""
