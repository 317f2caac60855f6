"""The best backbone, taken home: a folder that other frameworks load without this package."""
