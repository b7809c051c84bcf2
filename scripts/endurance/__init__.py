"""What `shoal chaos` and `shoal soak` run: work under fire, work for long, and the judges of both."""
