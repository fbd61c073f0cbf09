"""Properties of molecules: eleven tasks on one message-passing network."""
