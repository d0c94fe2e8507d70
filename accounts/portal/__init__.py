"""The pages of the portal that are about people and keys, and what all its pages share: navigation and home."""
