"""How the model that ships inside is trained."""
