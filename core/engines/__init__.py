"""What carries out the public calls: native (processes of our own), and whatever else implements `base.Engine`."""
