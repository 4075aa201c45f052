"""What happens inside the model: what its layers give, and what can be read from that."""
