"""The runtime: tasks, actors and shared objects on one machine. Users call what `api` and `remote` hold."""
