"""What joins the maps of a backbone for the heads of a detector."""
