"""Networks, and what is done to them before they are trained."""
