"""Gemini."""

from infrastructure.simulator.dialect import Profile
from infrastructure.simulator.openai import OpenAI


class Gemini(OpenAI):
    """The dialect of generativelanguage.googleapis.com."""

    profile = Profile(name="gemini", completion_paths=(), model_paths=())
