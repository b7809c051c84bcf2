"""`shoal bench core`: the cases, the children that run them on shoal and on Ray, and what the figures say."""
