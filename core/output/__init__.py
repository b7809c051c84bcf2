"""What workers print: lines, who printed them, and the thread of the driver that shows them."""
