"""What does the model do over all rows? Which columns matter, and how the score moves with them."""
