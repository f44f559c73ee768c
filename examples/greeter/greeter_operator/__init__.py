"""The operator of Greetings."""
