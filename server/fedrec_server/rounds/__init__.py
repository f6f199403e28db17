"""What is trained, and the rounds that train it, over Flower's SuperLink."""
