"""Who looks at a study."""
