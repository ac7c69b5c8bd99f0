"""The suite: mirrors flask_prod, file by file; real servers come from servers."""
