"""Live streams, whatever protocol they come by and go out by."""
