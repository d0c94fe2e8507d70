"""The portal's pages of a person's own usage."""
