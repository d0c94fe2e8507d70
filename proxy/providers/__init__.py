"""The adapters, one a file. Importing this package registers them all."""

from proxy.providers import anthropic, azure_openai, echo, openai

__all__ = ["anthropic", "azure_openai", "echo", "openai"]
