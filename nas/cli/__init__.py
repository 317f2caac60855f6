"""The command line: one file a command. The only place where all parts meet; nothing imports it.

Help, wrong flags and missing folders answer before torch or Ray is imported: commands import what
they run inside.
"""
