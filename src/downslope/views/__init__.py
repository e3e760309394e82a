"""Pictures and tables: plain data in, picture out."""
