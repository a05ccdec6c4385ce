"""Pages in the browser that people read them with."""
