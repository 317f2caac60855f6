"""A Gaussian process over layouts that learns from every epoch of every training, its loss
included: suggests what to train next, and stops what is unlikely to become the best.
"""
