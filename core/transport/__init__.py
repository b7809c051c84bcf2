"""How messages travel: one zmq socket per process, one loop that drives it."""
