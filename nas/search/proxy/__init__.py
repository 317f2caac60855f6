"""Whether a short training, the proxy, ranks layouts as a longer one does: which layouts are asked,
and what they say.
"""
