"""What `flask prod init` does: find where an application is made, plan a kit for it, show, write, and try it."""
