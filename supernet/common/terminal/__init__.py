"""The terminal side of commands: printing, words, progress, standard streams and Ctrl-C."""
