"""What a client does in a round: local steps on its images, with the network it can run."""
