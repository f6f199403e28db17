"""The model: a frozen backbone, and the adapter that is all the partners train and share."""
