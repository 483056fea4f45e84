"""DeepSeek's variation of Chat Completions."""

from infrastructure.simulator.dialect import Profile
from infrastructure.simulator.openai import OpenAI


class DeepSeek(OpenAI):
    """The dialect of api.deepseek.com."""

    profile = Profile(
        name="deepseek",
        completion_paths=("/chat/completions", "/v1/chat/completions"),
        model_paths=("/models", "/v1/models"),
        stream_keepalive=b": keep-alive\n\n",
        body_keepalive=b"\n",
    )
    model_names = ("deepseek-chat", "deepseek-reasoner")
