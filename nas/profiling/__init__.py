"""What a network costs, found out without training it."""

# packages that decide about parameters, multiply-adds and memory
SOURCES = ("nas.profiling", "nas.models")
