"""What a capture of a running model shows: measures of each layer, and causes of a gap."""
