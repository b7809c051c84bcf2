"""What goes on and what is measured, for people and programs: listings, timeline, metrics."""
