"""What bncli says to the system and hears from it: signals, standard streams, the progress bar."""
