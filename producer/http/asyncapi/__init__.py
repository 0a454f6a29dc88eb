"""The AsyncAPI document: channels, messages, and examples made by the code that makes real events."""
