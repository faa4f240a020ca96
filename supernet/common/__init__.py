"""What every package uses and none of the field's ideas is in: errors, extras, the command line, the machine."""
