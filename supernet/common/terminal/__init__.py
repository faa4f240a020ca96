"""The terminal: what is printed, in which words, with which progress, and how Ctrl-C ends it."""
