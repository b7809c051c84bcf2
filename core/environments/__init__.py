"""What a worker is started with: ``runtime_env``, and the variables, folders and paths that it comes to."""
