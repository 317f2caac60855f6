"""What the commands do, without a terminal: nothing here prints or reads flags; callbacks are told
what happens.
"""
