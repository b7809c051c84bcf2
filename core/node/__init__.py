"""One per machine: worker processes, leases on them, the regions of the object store."""
