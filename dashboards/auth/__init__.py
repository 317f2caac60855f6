"""Who may look at the pages, and who may change something."""
