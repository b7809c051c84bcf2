"""How frames get from process to process: one file for each way, all behind `base.Carrier`."""
